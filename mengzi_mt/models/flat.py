"""T5's forward pass over flat batches: no padding in any linear layer, no attention across examples.

The results are those of a plain ``transformers`` T5 (tests compare them, and gradients, in float64).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.flat import FlatBatch, Side
from mengzi_mt.models.blocks import decoder_block, encoder_block, norm
from mengzi_mt.models.cross_entropy import LossSettings, linear_cross_entropy
from mengzi_mt.models.fake_int8 import head_matrix
from mengzi_mt.models.pruned import own_heads

_SidePairs = Sequence[tuple[int, Side, Side]]
"""Examples, query side and key side of each group."""


def flat_loss(
    model: T5ForConditionalGeneration,
    batch: FlatBatch,
    settings: LossSettings | None = None,
    *,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the target tokens' losses (a scalar with gradient), and each token's cross-entropy.

    Args:
        model: in training or evaluation mode, which decides on dropout.
        batch: on the model's device.
        settings: label smoothing and z-loss.
        recompute: keep only the layers' inputs for the backward pass and compute the rest again.

    Returns:
        The sum over target tokens of weight times loss, and the cross-entropies ``(decoder tokens,)`` in float32, detached.
    """
    states = flat_states(model, batch, recompute=recompute)
    if getattr(model.config, "scale_decoder_outputs", False):
        states = states * model.model_dim**-0.5
    return linear_cross_entropy(states, head_matrix(model), batch.labels, batch.weights, settings or LossSettings())


def flat_states(model: T5ForConditionalGeneration, batch: FlatBatch, *, recompute: bool = False) -> Tensor:
    """Decoder states ``(decoder tokens, d_model)``, ready for the head (unscaled)."""
    device = batch.encoder_ids.device
    groups = [group.to(device) for group in batch.groups]
    decoder = [(group.examples, group.decoder, group.decoder) for group in groups]
    cross = [(group.examples, group.decoder, group.encoder) for group in groups]
    rate = model.config.dropout_rate if model.training else 0.0
    width = model.config.d_kv
    memory = encoder_states(model, batch.encoder_ids, [(group.examples, group.encoder) for group in groups], recompute=recompute)
    states = functional.dropout(model.shared(batch.decoder_ids), rate)
    bias = relative_bias(model.decoder, max(side.length for _, side, _ in decoder), causal=True)
    read = partial(_grouped, sides=cross, bias=None, width=width, rate=rate)
    for block in model.decoder.block:
        own = heads_of(block, bias)
        mix = partial(_grouped, sides=decoder, bias=own, width=width, rate=rate)
        states = run_block(decoder_block, recompute, block, states, memory, mix, read, rate)
    return functional.dropout(norm(model.decoder.final_layer_norm, states), rate)


def encoder_states(
    model: T5ForConditionalGeneration, ids: Tensor, sides: Sequence[tuple[int, Side]], *, recompute: bool = False
) -> Tensor:
    """The encoder's states ``(tokens, d_model)`` of texts in one line.

    Args:
        model: in training or evaluation mode, which decides on dropout.
        ids: ``(tokens,)``.
        sides: number of texts and their layout, of each group that attends as one block, on the same device.
        recompute: as in :func:`flat_loss`.
    """
    rate = model.config.dropout_rate if model.training else 0.0
    states = functional.dropout(model.shared(ids), rate)
    bias = relative_bias(model.encoder, max(side.length for _, side in sides), causal=False)
    own = [(number, side, side) for number, side in sides]
    for block in model.encoder.block:
        heads = heads_of(block, bias)
        mix = partial(_grouped, sides=own, bias=heads, width=model.config.d_kv, rate=rate)
        states = run_block(encoder_block, recompute, block, states, mix, rate)
    return functional.dropout(norm(model.encoder.final_layer_norm, states), rate)


def relative_bias(stack: nn.Module, length: int, causal: bool) -> Tensor:
    """T5's learned bias of relative distances, ``(heads, length, length)``; the future is blocked where ``causal``."""
    return block_bias(stack.block[0], length, causal)  # type: ignore[index]


def block_bias(block: Any, length: int, causal: bool) -> Tensor:
    """The same of one block: T5's first has it for all, umT5's each have their own."""
    attention: Any = block.layer[0].SelfAttention
    bias: Tensor = attention.compute_bias(length, length, device=attention.relative_attention_bias.weight.device)[0]
    if causal:
        future = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(future, torch.finfo(bias.dtype).min)
    return bias


def heads_of(block: Any, bias: Tensor) -> Tensor:
    """The part of the bias, or of a table with a row a head, that belongs to the heads of a block's self-attention."""
    return own_heads(block.layer[0].SelfAttention, bias)


GATHERED = "call_gathered"
"""Name of the method that a sharded block has; see :mod:`mengzi_mt.training.sharding`."""


def run_block(function: Any, recompute: bool, block: Any, *arguments: Any) -> Tensor:
    """``function(block, *arguments)``, with the block's weights at hand where they are sharded among processes.

    A forward pass of one's own does not go through the block's ``forward``, where FSDP would gather them.
    """
    states: Tensor = getattr(block, GATHERED, partial(call_on_block, block))(function, recompute, *arguments)
    return states


def call_on_block(block: Any, function: Any, recompute: bool, *arguments: Any) -> Tensor:
    """What :func:`run_block` does once the weights are there."""
    states: Tensor = checkpoint(function, block, *arguments, use_reentrant=False) if recompute else function(block, *arguments)
    return states


def _grouped(query: Tensor, key: Tensor, value: Tensor, sides: _SidePairs, bias: Tensor | None, width: int, rate: float) -> Tensor:
    """Attention of every group's block, over the group's own tokens alone; ``width`` is that of a head."""
    heads = query.shape[1] // width
    pieces = []
    for examples, asking, asked in sides:
        q = _laid_out(query, asking, examples, heads, width)
        k, v = (_laid_out(part, asked, examples, heads, width) for part in (key, value))
        scores = q @ k.transpose(2, 3)
        if bias is not None:
            scores = scores + bias[:, : asking.length, : asked.length]
        if asked.blocked is not None:
            scores = scores.masked_fill(asked.blocked[:, None, None, :], torch.finfo(scores.dtype).min)
        seen = functional.dropout(functional.softmax(scores.float(), dim=-1).type_as(scores), rate)
        block = (seen @ v).transpose(1, 2).reshape(examples * asking.length, heads * width)
        pieces.append(block if asking.scatter is None else block.index_select(0, asking.scatter))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _laid_out(tokens: Tensor, side: Side, examples: int, heads: int, width: int) -> Tensor:
    """The group's tokens as a padded block, ``(examples, heads, length, width)``."""
    part = tokens[side.start : side.stop]
    if side.gather is not None:
        part = part.index_select(0, side.gather)
    return part.view(examples, side.length, heads, width).transpose(1, 2)
