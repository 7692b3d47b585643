"""T5's layers for inference over lines of tokens: what scoring and generation share.

Linear layers see the tokens of all inputs in one line without padding; attention goes by groups. In bfloat16 matrices and the
operands of products are rounded; the residual stream, norms and softmax stay float32. Where a layer is an
:class:`~mengzi_mt.models.int8.Int8Linear`, it multiplies integers, and everything else is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.flat import Side
from mengzi_mt.models.flat import block_bias
from mengzi_mt.models.int8 import Int8Linear
from mengzi_mt.models.pruned import own_heads
from mengzi_mt.models.t5 import output_scale

Block = tuple[int, Side, Side, Tensor | None]
"""A block of attention: examples, query side, key side, additive mask."""


class Inference:
    """A T5 made ready for inference: its matrices in the precision of the products.

    The model's weights must not change afterwards, and adapters must be merged.
    """

    def __init__(self, model: T5ForConditionalGeneration, precision: torch.dtype = torch.float32) -> None:
        self.model = model
        self.precision = precision
        self.matrices = {layer: layer.weight.to(precision) for layer in model.modules() if isinstance(layer, nn.Linear)}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.encoder.final_layer_norm.weight.device

    def encode_groups(self, ids: Tensor, groups: Sequence[tuple[int, Side]]) -> Tensor:
        """Encoder states ``(encoder tokens, d_model)`` in the precision of the products.

        Args:
            ids: of all inputs, one after the other, ``(encoder tokens,)``.
            groups: number of examples and layout of every group, in the order of the tokens.
        """
        encoder: Any = self.model.encoder
        blocks: list[Block] = []
        states = self.model.shared(ids).float()
        for block in encoder.block:
            if block.layer[0].SelfAttention.has_relative_attention_bias:
                blocks = self._encoder_blocks(block, groups)
            reading = self.norm(block.layer[0].layer_norm, states)
            states += self.attention(block.layer[0].SelfAttention, reading, reading, blocks)
            states += self.feed_forward(block.layer[1], states)
        return self.norm(encoder.final_layer_norm, states)

    def _encoder_blocks(self, block: Any, groups: Sequence[tuple[int, Side]]) -> list[Block]:
        """The groups' inputs with the block's bias, padding blocked."""
        bias = block_bias(block, max(side.length for _, side in groups), causal=False)
        blocks: list[Block] = []
        for examples, side in groups:
            mask = bias[None, :, : side.length, : side.length]
            if side.blocked is not None:
                mask = mask.masked_fill(side.blocked[:, None, None, :], least(mask))
            blocks.append((examples, side, side, self.mask(mask)))
        return blocks

    def mask(self, mask: Tensor) -> Tensor:
        """In the type that the attention kernel asks for: on a CPU float32, elsewhere that of the operands."""
        return mask.float() if mask.device.type == "cpu" else mask.to(self.precision)

    def norm(self, layer: Any, states: Tensor) -> Tensor:
        """T5's layer norm, in the precision of the products."""
        return rms(layer, states).to(self.precision)

    def linear(self, layer: Any, states: Tensor) -> Tensor:
        """A linear layer with its matrix in the precision of the products."""
        if isinstance(layer, Int8Linear):
            return layer(states).to(self.precision)
        return functional.linear(states, self.matrices[layer])

    def feed_forward(self, layer: Any, states: Tensor) -> Tensor:
        """What a feed-forward layer, gated or not, adds to the states."""
        dense, reading = layer.DenseReluDense, self.norm(layer.layer_norm, states)
        if hasattr(dense, "wi_0"):
            hidden = self._activated(dense, self.linear(dense.wi_0, reading)).mul_(self.linear(dense.wi_1, reading))
        else:
            hidden = self._activated(dense, self.linear(dense.wi, reading))
        return self.linear(dense.wo, hidden)

    def _activated(self, dense: Any, hidden: Tensor) -> Tensor:
        if self.model.config.dense_act_fn == "gelu_new":
            return functional.gelu(hidden, approximate="tanh")  # the library's own is the same in six operations
        activated: Tensor = dense.act(hidden)
        return activated

    def attention(self, attention: Any, states: Tensor, source: Tensor, blocks: list[Block]) -> Tensor:
        """Attention within each block; T5 does not divide scores by the root of the width.

        The heads of a mask are those of the stack's relative bias, of which a pruned layer has some.
        """
        query, key, value = self.linear(attention.q, states), self.linear(attention.k, source), self.linear(attention.v, source)
        heads, width = attention.n_heads, attention.key_value_proj_dim
        pieces = []
        for examples, asking, asked, mask in blocks:
            q = laid_out(query, asking, examples, heads, width)
            k, v = (laid_out(part, asked, examples, heads, width) for part in (key, value))
            if mask is not None:
                mask = own_heads(attention, mask, 1).expand(examples, heads, asking.length, asked.length)
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
            out = out.transpose(1, 2).reshape(examples * asking.length, heads * width)
            pieces.append(out if asking.scatter is None else out.index_select(0, asking.scatter))
        return self.linear(attention.o, pieces[0] if len(pieces) == 1 else torch.cat(pieces))

    def ready_for_head(self, states: Tensor) -> Tensor:
        """The decoder's last norm in float32, scaled where the model does (T5 v1.0, whose head is its embedding)."""
        decoder: Any = self.model.decoder
        return rms(decoder.final_layer_norm, states) * output_scale(self.model)


def rms(layer: Any, states: Tensor) -> Tensor:
    """T5's layer norm, in float32: no mean is taken out and there is no bias."""
    return functional.rms_norm(states, (states.shape[-1],), layer.weight.float(), layer.variance_epsilon)


def laid_out(tokens: Tensor, side: Side, examples: int, heads: int, width: int) -> Tensor:
    """The group's tokens as a padded block, ``(examples, heads, length, width)``."""
    part = tokens[side.start : side.stop]
    if side.gather is not None:
        part = part.index_select(0, side.gather)
    return part.view(examples, side.length, heads, width).transpose(1, 2)


def least(mask: Tensor) -> float:
    """Finite, also in bfloat16 and with a score added: a padded query that sees nothing must not become NaN."""
    return torch.finfo(mask.dtype).min / 2


def blocked_mask(blocked: Tensor) -> Tensor:
    """Zero, and :func:`least` where blocked."""
    mask = torch.zeros(blocked.shape, device=blocked.device)
    return mask.masked_fill(blocked, least(mask))
