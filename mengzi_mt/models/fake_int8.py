"""Training that feels the rounding of :mod:`mengzi_mt.models.int8`: forward as if in integers, backward as if not rounded.

Every linear layer multiplies rounded states by a rounded matrix, the embedding gives rounded rows, and the head's matrix is
rounded. Rounding has no gradient, so it is taken for the identity (straight-through, Bengio et al., arXiv:1308.3432;
quantisation-aware training, Jacob et al., arXiv:1712.05877). Layers change their class alone: parameters, their names and
checkpoints are those of a plain T5 in float, whose export to int8 then is what was trained.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mengzi_mt.models.int8 import SMALLEST, activation_levels, quantise_rows


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """The rounded value with the gradient of the value."""
    return value + (rounded.to(value.dtype) - value).detach()


def round_rows(weight: Tensor) -> Tensor:
    """A matrix as :func:`~mengzi_mt.models.int8.quantise_rows` rounds it."""
    return straight_through(weight, quantise_rows(weight).whole())


def round_tokens(states: Tensor) -> Tensor:
    """States ``(..., width)`` as :class:`~mengzi_mt.models.int8.Int8Linear` rounds what it reads."""
    read, levels = states.detach().float(), activation_levels()
    largest = read.abs().amax(-1, keepdim=True).clamp_(min=SMALLEST)
    return straight_through(states, (read / largest * levels).round_() / levels * largest)


class FakeInt8Linear(nn.Linear):
    """A linear layer without bias that rounds what it reads and its matrix."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        return functional.linear(round_tokens(input), round_rows(self.weight))


class FakeInt8Embedding(nn.Embedding):
    """An embedding that rounds the rows that it gives, each by itself as the whole table would be."""

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the ids."""
        rows = functional.embedding(input, self.weight)
        return round_rows(rows.flatten(0, -2)).view_as(rows)


def fake_int8(model: T5ForConditionalGeneration) -> None:
    """Let a model round from now on."""
    layers: list[Any] = list(model.modules())
    for layer in layers:
        if type(layer) is nn.Linear:
            layer.__class__ = FakeInt8Linear
    for layer in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
        layer.__class__ = FakeInt8Embedding


def head_matrix(model: Any) -> Tensor:
    """The head's matrix as a loss takes it, ``(vocabulary, d_model)``: rounded where the model rounds."""
    head = model.lm_head
    matrix: Tensor = round_rows(head.weight) if isinstance(head, FakeInt8Linear) else head.weight
    return matrix
