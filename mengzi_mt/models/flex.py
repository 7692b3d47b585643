"""T5's forward pass with FlexAttention over one line of tokens: for CUDA.

All examples of a forward pass stand in one line, filled up to a multiple of :data:`BLOCK` tokens. ``segments`` numbers them in
rising order; a token sees its own segment only. The attention kernel goes through the line in blocks and leaves out those that
share no segment, so that the work grows with the examples' lengths and not with the line's:

    keys      1 1 1 2 2 2 2 3 3 3 3 3        blocks of 4 tokens: # whole, + masked within, . never touched
    queries   1                              + + .
              2                              + # +      (docs/attention.md: what is left over at 128 tokens a block)
              3                              . + +

T5's relative bias is read by distance from a small table inside the kernel, which also adds up its gradient; the scores are
never written to memory. FlexAttention (Dong et al., arXiv:2412.05496) has no dropout of attention weights, so there is none here;
dropout everywhere else acts as in ``transformers``.

Blocks of layers are compiled on CUDA, once for all layers and for all lengths of the line. On a CPU the same masks and the same
bias go through :func:`dense_attention`, which is for tests: FlexAttention has no backward pass there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.batch import IGNORED, PackedBatch
from mengzi_mt.data.flat import FlatBatch
from mengzi_mt.errors import InputError
from mengzi_mt.models.blocks import decoder_block, encoder_block, norm
from mengzi_mt.models.cross_entropy import LossSettings, linear_cross_entropy
from mengzi_mt.models.fake_int8 import head_matrix
from mengzi_mt.models.flat import heads_of, run_block

BLOCK = 128
"""Tokens of a block of the attention mask, FlexAttention's default; lines are a multiple of it, which the kernel need not check."""

REACH = 512
"""Distances of the bias table on each side; farther ones read its ends. Exact from ``relative_attention_max_distance`` on; more
than that spreads the sums of the gradient over more addresses."""


class Line(NamedTuple):
    """The tokens of a forward pass. ``(blocks, BLOCK)`` each: ids (int64) and segments (int32, never falling along the line)."""

    encoder_ids: Tensor
    encoder_segments: Tensor
    decoder_ids: Tensor
    decoder_segments: Tensor


class Mask(NamedTuple):
    """Which blocks of keys the blocks of queries touch, and which segments they hold.

    ``partly`` and ``wholly`` each are (counts, indices) by query block, and (counts, indices) by key block, int32,
    ``(1, 1, blocks)`` and ``(1, 1, blocks, blocks)``: blocks masked within, and blocks where every query sees every key.
    """

    queries: Tensor
    keys: Tensor
    partly: tuple[Tensor, Tensor, Tensor, Tensor]
    wholly: tuple[Tensor, Tensor, Tensor, Tensor]


def uses_flex(choice: str, device: torch.device) -> bool:
    """Whether the recipe's ``training.attention`` means this module on a device.

    Raises:
        InputError: ``flex`` was asked for where it has no backward pass.
    """
    if choice == "flex" and device.type != "cuda":
        raise InputError(f"FlexAttention cannot train on {device.type}", where="training.attention", fix="set it to auto")
    return choice == "flex" or (choice == "auto" and device.type == "cuda")


def flex_loss(
    model: T5ForConditionalGeneration,
    batch: FlatBatch | PackedBatch,
    settings: LossSettings | None = None,
    *,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the target tokens' losses (a scalar with gradient), and each token's cross-entropy.

    Args:
        model: in training or evaluation mode, which decides on dropout (never of attention weights).
        batch: on the model's device. The rows of packed ones are put in line.
        settings: label smoothing and z-loss.
        recompute: keep only the layers' inputs for the backward pass and compute the rest again.

    Returns:
        The sum over target tokens of weight times loss, and cross-entropies ``(batch.target_tokens,)`` in float32, detached.
    """
    if isinstance(batch, FlatBatch):
        states = line_states(model, flat_line(batch), recompute=recompute)[: len(batch.labels)]
        labels, weights = batch.labels, batch.weights
    else:
        counted = batch.labels != IGNORED
        states = line_states(model, packed_line(batch), recompute=recompute)[: batch.labels.numel()][counted.flatten()]
        labels, weights = batch.labels[counted], batch.weights[counted]
    if getattr(model.config, "scale_decoder_outputs", False):
        states = states * model.model_dim**-0.5
    return linear_cross_entropy(states, head_matrix(model), labels, weights, settings or LossSettings())


def line_states(model: T5ForConditionalGeneration, line: Line, *, recompute: bool = False) -> Tensor:
    """Decoder states ``(decoder slots, d_model)`` of a line, ready for the head (unscaled)."""
    rate = model.config.dropout_rate if model.training else 0.0
    width = model.config.d_kv
    seen = segment_blocks(line.encoder_segments, line.encoder_segments)
    run_encoder, run_decoder = _functions(line.encoder_ids.device.type)
    states = functional.dropout(model.shared(line.encoder_ids), rate)
    table = bias_table(model.encoder)
    for block in model.encoder.block:
        own = heads_of(block, table)
        states = run_block(run_encoder, recompute, block, states, seen, own, width, rate)
    memory = functional.dropout(norm(model.encoder.final_layer_norm, states), rate)
    seen = segment_blocks(line.decoder_segments, line.decoder_segments, causal=True)
    read = segment_blocks(line.decoder_segments, line.encoder_segments)
    states = functional.dropout(model.shared(line.decoder_ids), rate)
    table = bias_table(model.decoder)
    for block in model.decoder.block:
        own = heads_of(block, table)
        states = run_block(run_decoder, recompute, block, states, memory, seen, read, own, width, rate)
    return functional.dropout(norm(model.decoder.final_layer_norm, states), rate).flatten(0, 1)


def flat_line(batch: FlatBatch) -> Line:
    """The examples of a flat batch as they stand; what fills up the last block is a segment of its own."""
    sides = []
    for number, ids in enumerate((batch.encoder_ids, batch.decoder_ids)):
        padded = _padded(ids)
        counts = torch.tensor([lengths[number] for lengths in batch.lengths] + [padded.numel() - len(ids)]).to(ids.device)
        names = torch.arange(len(counts), device=ids.device, dtype=torch.int32)
        segments = names.repeat_interleave(counts, output_size=padded.numel())
        sides += [padded, segments.view(padded.shape)]
    return Line(*sides)


def packed_line(batch: PackedBatch) -> Line:
    """Packed rows one after the other; the padding of each row is a segment of its own."""
    rows, most = batch.encoder_segments.shape  # a row has at most as many segments as encoder tokens
    first = torch.arange(rows, device=batch.labels.device)[:, None] * (most + 2)
    sides = []
    for ids, segments in ((batch.encoder_ids, batch.encoder_segments), (batch.decoder_ids, batch.decoder_segments)):
        named = torch.where(segments == 0, most + 1, segments) + first
        sides += [_padded(ids.flatten()), _padded(named.flatten(), rows * (most + 2)).int()]
    return Line(*sides)


def _padded(tokens: Tensor, filling: int = 0) -> Tensor:
    return functional.pad(tokens, (0, -len(tokens) % BLOCK), value=filling).view(-1, BLOCK)


def segment_blocks(queries: Tensor, keys: Tensor, causal: bool = False) -> Mask:
    """The mask of two lines of segments ``(blocks, BLOCK)``; where ``causal``, a query sees no later key."""
    first, last = queries[:, :1], queries[:, -1:]
    key_first, key_last = keys[:, 0], keys[:, -1]
    touched = (first <= key_last) & (key_first <= last)  # segments rise along the line, so a block holds a range of them
    whole = (first == key_last) & (key_first == last)
    if causal:
        touched, whole = touched.tril(), whole.tril(-1)
    partly, wholly = (_ordered(blocks) + _ordered(blocks.T) for blocks in (touched & ~whole, whole))
    return Mask(queries.flatten(), keys.flatten(), partly, wholly)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of a block mask the number of its blocks, and the columns with those blocks first."""
    marks = blocks.int()
    order = marks.argsort(dim=1, descending=True, stable=True)
    return marks.sum(1).int()[None, None].contiguous(), order.int()[None, None].contiguous()


def bias_table(stack: Any) -> Tensor:
    """T5's learned bias by distance (key minus query) from -REACH to REACH: ``(heads, 2 * REACH + 1)``, float32 at least."""
    attention = stack.block[0].layer[0].SelfAttention
    weight = attention.relative_attention_bias.weight
    reach = max(REACH, attention.relative_attention_max_distance)
    buckets = attention._relative_position_bucket(
        torch.arange(-reach, reach + 1, device=weight.device),
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    table: Tensor = attention.relative_attention_bias(buckets)
    return table.to(torch.promote_types(table.dtype, torch.float32)).T.contiguous()


def _encoder(block: Any, states: Tensor, mask: Mask, table: Tensor, width: int, rate: float) -> Tensor:
    return encoder_block(block, states, partial(_attend, mask=mask, causal=False, table=table, width=width), rate)


def _decoder(block: Any, states: Tensor, memory: Tensor, mask: Mask, cross: Mask, table: Tensor, width: int, rate: float) -> Tensor:
    mix = partial(_attend, mask=mask, causal=True, table=table, width=width)
    read = partial(_attend, mask=cross, causal=False, table=None, width=width)
    return decoder_block(block, states, memory, mix, read, rate)


@cache
def _functions(device: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The functions of an encoder and a decoder block, compiled where there is a kernel."""
    if device != "cuda":
        return _encoder, _decoder
    # fullgraph: without, a part that cannot be compiled would fall back to scores of the whole line by the whole line
    return torch.compile(_encoder, fullgraph=True), torch.compile(_decoder, fullgraph=True)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask, causal: bool, table: Tensor | None, width: int) -> Tensor:
    """Attention over the line, ``(blocks, BLOCK, heads * width)`` in and out."""
    # blocks and BLOCK are joined here, within what is compiled: so the compiler knows the length for a multiple of BLOCK
    parts = (part.flatten(0, 1).unflatten(1, (-1, width)).transpose(0, 1)[None] for part in (query, key, value))
    attention: Any = flex_attention if query.is_cuda else dense_attention
    out: Tensor = attention(*parts, score_mod=_score_mod(table), block_mask=_block_mask(mask, causal), scale=1.0)
    return out[0].transpose(0, 1).reshape(query.shape)


def _score_mod(table: Tensor | None) -> Callable[..., Tensor] | None:
    if table is None:
        return None
    reach = table.shape[1] // 2

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + table[head, (key - query).clamp(-reach, reach) + reach]

    return add_bias


def _block_mask(mask: Mask, causal: bool) -> BlockMask:
    queries, keys = mask.queries, mask.keys

    def same_segment(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return queries[query] == keys[key]

    def same_segment_before(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (queries[query] == keys[key]) & (query >= key)

    kv_count, kv_index, q_count, q_index = mask.partly
    full_kv_count, full_kv_index, full_q_count, full_q_index = mask.wholly
    return BlockMask(
        seq_lengths=(queries.shape[0], keys.shape[0]),
        kv_num_blocks=kv_count, kv_indices=kv_index, full_kv_num_blocks=full_kv_count, full_kv_indices=full_kv_index,
        q_num_blocks=q_count, q_indices=q_index, full_q_num_blocks=full_q_count, full_q_indices=full_q_index,
        BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=same_segment_before if causal else same_segment,
    )  # fmt: skip


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Callable[..., Tensor] | None, block_mask: BlockMask, scale: float
) -> Tensor:
    """What FlexAttention computes, with the scores of all pairs in memory; it sees only the blocks that the kernel goes through.

    Shapes ``(1, heads, tokens, width)``. A query that may see nothing gets zeros.
    """
    heads, places, others = (torch.arange(n, device=query.device) for n in (query.shape[1], query.shape[2], key.shape[2]))
    index = (torch.zeros((), dtype=torch.long), heads[:, None, None], places[:, None], others)
    scores = (query @ key.transpose(2, 3) * scale).to(torch.promote_types(query.dtype, torch.float32))
    if score_mod is not None:
        scores = score_mod(scores, *index)
    partly = _marked(block_mask.kv_num_blocks, block_mask.kv_indices)
    wholly = _marked(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
    asks, asked = block_mask.BLOCK_SIZE
    partly, wholly = (blocks.repeat_interleave(asks, 2).repeat_interleave(asked, 3) for blocks in (partly, wholly))
    scores = scores.masked_fill(~(wholly | (partly & block_mask.mask_mod(*index))), float("-inf"))
    return torch._safe_softmax(scores, dim=-1).to(value.dtype) @ value


def _marked(counts: Tensor | None, indices: Tensor | None) -> Tensor:
    """The inverse of :func:`_ordered`: ``(1, 1, query blocks, key blocks)``, whether the kernel goes through a block."""
    assert counts is not None and indices is not None
    first = torch.arange(indices.shape[3], device=indices.device) < counts[..., None]
    return torch.zeros_like(first).scatter(3, indices.long(), first)
