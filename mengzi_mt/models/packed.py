"""Forward passes over packed rows: several examples a row, none of which sees another.

A row of the encoder holds examples one after the other; ``segments`` numbers them from 1, 0 is padding:

    tokens    今 天 好 </s> | 选 A </s> | <pad>         segments   1 1 1 1 2 2 2 0

    encoder self-attention (query row, key column)      decoder self-attention        cross-attention
        1 1 1 1 . . . .                                  1 . . .                       decoder segment = encoder segment
        1 1 1 1 . . . .                                  1 1 . .
        . . . . 2 2 2 .                                  . . 2 .
        ...                                              . . 2 2

T5's relative bias depends only on the distance between two tokens, which packing does not change inside a segment, so
the masks are all that packing needs (compare seqio's ``EncDecFeatureConverter(pack=True)``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.batch import IGNORED, PackedBatch
from mengzi_mt.models.cross_entropy import LossSettings, linear_cross_entropy
from mengzi_mt.models.fake_int8 import head_matrix

_BLOCKED = torch.finfo(torch.float32).min / 2  # finite: a row that may see nothing must not become NaN


def segment_mask(queries: Tensor, keys: Tensor, causal: bool = False) -> Tensor:
    """Additive float32 mask ``(rows, 1, query length, key length)``: 0 where query and key share a segment, else blocked.

    Args:
        queries: segments of the query side, ``(rows, query length)``.
        keys: segments of the key side, ``(rows, key length)``.
        causal: whether a query sees only keys at its own place or before.
    """
    allowed = queries[:, :, None] == keys[:, None, :]
    if causal:
        allowed = allowed & torch.ones(allowed.shape[1:], dtype=torch.bool, device=allowed.device).tril()
    return torch.where(allowed, 0.0, _BLOCKED)[:, None]


def encode(model: T5ForConditionalGeneration, ids: Tensor, segments: Tensor) -> Tensor:
    """Encoder states ``(rows, encoder length, d_model)`` of packed (or merely padded) rows."""
    return model.encoder(input_ids=ids, attention_mask=segment_mask(segments, segments)).last_hidden_state


def decode(
    model: T5ForConditionalGeneration,
    states: Tensor,
    encoder_segments: Tensor,
    decoder_ids: Tensor,
    decoder_segments: Tensor,
    cross_segments: Tensor | None = None,
) -> Tensor:
    """Decoder states ``(rows, decoder length, d_model)``, ready for :func:`head`.

    Args:
        model: the model.
        states: encoder states, ``(rows, encoder length, d_model)``.
        encoder_segments: ``(rows, encoder length)``.
        decoder_ids: ``(rows, decoder length)``.
        decoder_segments: which decoder tokens see each other, ``(rows, decoder length)``.
        cross_segments: the encoder segment that each decoder token reads; by default its own number. Choices of one
            input have segments of their own and all read segment 1.
    """
    cross = decoder_segments if cross_segments is None else cross_segments
    return model.decoder(
        input_ids=decoder_ids,
        attention_mask=segment_mask(decoder_segments, decoder_segments, causal=True),
        encoder_hidden_states=states,
        encoder_attention_mask=segment_mask(cross, encoder_segments),
        use_cache=False,
    ).last_hidden_state


def head(model: T5ForConditionalGeneration, states: Tensor) -> Tensor:
    """Logits of decoder states, scaled as the checkpoint's kind asks (T5 v1.0 and tied heads scale, v1.1 and mT5 do not)."""
    if getattr(model.config, "scale_decoder_outputs", False):
        states = states * model.model_dim**-0.5
    return model.lm_head(states)


def packed_loss(
    model: T5ForConditionalGeneration, batch: PackedBatch, settings: LossSettings | None = None
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the target tokens' losses (a scalar with gradient), and each token's cross-entropy.

    Only positions with a label reach the head.

    Returns:
        The sum over target tokens of weight times loss, and cross-entropies ``(batch.target_tokens,)`` in float32, detached.
    """
    states = encode(model, batch.encoder_ids, batch.encoder_segments)
    states = decode(model, states, batch.encoder_segments, batch.decoder_ids, batch.decoder_segments)
    if getattr(model.config, "scale_decoder_outputs", False):
        states = states * model.model_dim**-0.5
    counted = batch.labels != IGNORED
    weights = batch.weights[counted]
    return linear_cross_entropy(states[counted], head_matrix(model), batch.labels[counted], weights, settings or LossSettings())
