"""Relations between tokens, and how far a student's are from its teacher's.

MiniLM (arXiv:2002.10957) matches one layer's attention distributions and value relations, MiniLMv2 (arXiv:2012.15828) its relations
of queries, keys and values in relation heads of their own number. Which quantity that is in a T5, and why, stands in
docs/compression.md; letters are as there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mengzi_mt.errors import InputError

Method = Literal["minilm", "minilmv2"]
_BLOCKED = -1e4
"""Score of what does not count: its probability is 0 in any precision, and no difference of it is infinite."""


class Projections(NamedTuple):
    """What an attention made of its inputs, ``(…, heads * width)`` each."""

    query: Tensor
    key: Tensor
    value: Tensor


@contextmanager
def recorded(attentions: Mapping[str, tuple[nn.Module, nn.Module, nn.Module]]) -> Iterator[dict[str, Projections]]:
    """Inside, what these linear layers (of queries, keys, values) gave last, by name; it is there once all three were called."""
    outputs: dict[str, dict[int, Tensor]] = {name: {} for name in attentions}
    found: dict[str, Projections] = {}
    hooks = []

    def keep(name: str, number: int, output: Tensor) -> None:
        outputs[name][number] = output
        if len(outputs[name]) == len(Projections._fields):
            found[name] = Projections(*(outputs[name][place] for place in range(3)))

    for name, layers in attentions.items():
        for number, layer in enumerate(layers):
            hooks.append(layer.register_forward_hook(lambda _, __, out, name=name, number=number: keep(name, number, out)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Attending:
    """One model's attention over a padded block of texts.

    Attributes:
        projections: ``(texts, length, heads * width)`` each.
        heads: of the attention.
        score_scale: what the products of queries and keys are multiplied with: BERT's 1/√width; T5 does not scale, so 1.
        query_scale: what puts the queries on the scale of the keys and values: T5's own contain the 1/√width that BERT divides
            by, so √width; BERT's 1.
        bias: T5's of relative positions, ``(heads, queries, keys)``; None without.
    """

    projections: Projections
    heads: int
    score_scale: float
    query_scale: float
    bias: Tensor | None = None

    def attention(self) -> Tensor:
        """The scores whose softmax the layer attends with, ``(texts, heads, queries, keys)``."""
        query, key, _ = self.projections
        scores = _products(query, key, self.heads, self.score_scale)
        return scores if self.bias is None else scores + self.bias

    def values(self) -> Tensor:
        """MiniLM's value relation: V Vᵀ / √width, ``(texts, heads, keys, keys)``."""
        value = self.projections.value
        return _products(value, value, self.heads, (value.shape[-1] // self.heads) ** -0.5)

    def relation(self, one: str, other: str, heads: int) -> Tensor:
        """MiniLMv2's relation of two projections in so many relation heads: A Bᵀ / √(width of such a head)."""
        left, right = (getattr(self.projections, name) for name in (one, other))
        scale = math.prod(self.query_scale for name in (one, other) if name == "query")
        return _products(left, right, heads, scale * (left.shape[-1] // heads) ** -0.5)


def _products(left: Tensor, right: Tensor, heads: int, scale: float) -> Tensor:
    """``(texts, heads, rows, columns)`` in float32 or float64."""
    one, other = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (left, right))
    scores = (one * scale) @ other.transpose(2, 3)
    return scores if scores.dtype == torch.float64 else scores.float()


@dataclass(frozen=True)
class Layout:
    """Which tokens of a padded block count.

    Attributes:
        queries, keys: weight of each token as a row of a relation, ``(texts, length)``; 0 for padding. The same in self-attention.
        causal: whether a token only relates to itself and to those before it.
        cross: whether queries and keys are of different texts.
    """

    queries: Tensor
    keys: Tensor
    causal: bool = False
    cross: bool = False

    def blocked(self, of_keys: bool, rows: int) -> Tensor:
        """Which columns do not count, ``(texts, 1, 1 or rows, columns)``: padding, and where causal the future."""
        weights = self.keys if of_keys else self.queries
        padding = (weights == 0)[:, None, None, :]
        if not self.causal:
            return padding
        return padding | torch.ones(rows, weights.shape[1], dtype=torch.bool, device=weights.device).triu(1)


def relation_loss(method: Method, heads: int | None, teacher: Attending, student: Attending, layout: Layout) -> Tensor:
    """How far the student's relations are from the teacher's, ``Σ_r Σ_t w_t D_rt``: a scalar; see :func:`relations_apart`."""
    return torch.stack([(apart * rows).sum() for apart, rows in relations_apart(method, heads, teacher, student, layout)]).sum()


def relations_apart(
    method: Method, heads: int | None, teacher: Attending, student: Attending, layout: Layout
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each relation r the divergence ``D_rt`` at every row t, ``(texts, rows)``, and the rows' weights.

    minilm: ``D_rt = mean_a KL(teacher_rat ‖ student_rat)`` of the attention distributions and of the value relations. minilmv2: a
    third of it, of the relations of queries, of keys, and of values; in cross-attention half of it, of queries with keys, and of
    values.

    Args:
        method: as said.
        heads: relation heads, for minilmv2; they divide both sides' projections.
        teacher: gets no gradients.
        student: over the same texts.
        layout: of both.
    """
    if method == "minilm":
        queries, keys = layout.queries, layout.keys
        yield divergence(teacher.attention(), student.attention(), layout.blocked(True, queries.shape[1])), queries
        yield divergence(teacher.values(), student.values(), layout.blocked(True, keys.shape[1])), keys
        return
    assert heads is not None
    pairs = [("query", "key"), ("value", "value")] if layout.cross else [("query", "query"), ("key", "key"), ("value", "value")]
    for one, other in pairs:
        rows = layout.queries if one == "query" else layout.keys
        blocked = layout.blocked(other != "query", rows.shape[1])
        theirs, ours = (side.relation(one, other, heads) for side in (teacher, student))
        yield divergence(theirs, ours, blocked) / len(pairs), rows


def divergence(teacher: Tensor, student: Tensor, blocked: Tensor) -> Tensor:
    """``mean_a KL(softmax(teacher_at) ‖ softmax(student_at))`` at every row t, ``(texts, rows)``.

    Args:
        teacher: scores ``(texts, heads, rows, columns)``; they get no gradients.
        student: the same.
        blocked: columns that do not count, broadcast to the scores.
    """
    return _Divergence.apply(teacher.detach(), student, blocked)


class _Divergence(torch.autograd.Function):
    """Scores are a step's largest tensors: only the gradient, softmax(student) − softmax(teacher), is kept of them."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, blocked: Tensor) -> Tensor:  # type: ignore[override]
        theirs, ours = (scores.masked_fill(blocked, _BLOCKED).log_softmax(-1) for scores in (teacher, student))
        shares = theirs.exp()
        found = torch.linalg.vecdot(shares, theirs.sub_(ours)).mean(1)
        ctx.save_for_backward(ours.exp_().sub_(shares))
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[override]
        (apart,) = ctx.saved_tensors
        return None, apart * (grad / apart.shape[1])[:, None, :, None], None


def relation_heads(wanted: int | None, teacher: tuple[int, int], student: tuple[int, int], method: Method) -> int | None:
    """The number of relation heads, checked against both sides' heads and widths of projections.

    By default four times the teacher's heads, as the paper has it: 48 of 12, 64 of 16.

    Args:
        wanted: the recipe's.
        teacher: heads, and width of a projection.
        student: the same.
        method: minilm has no relation heads.

    Raises:
        InputError: minilm with different numbers of heads; relation heads that do not divide a width.
    """
    (their_heads, their_width), (own_heads, own_width) = teacher, student
    if method == "minilm":
        if their_heads != own_heads:
            raise InputError(
                f"The teacher has {their_heads} heads and the student {own_heads}: minilm pairs them one by one",
                where="relations.method", fix="set relations.method: minilmv2, whose relation heads fit any number",
            )  # fmt: skip
        return None
    heads = wanted or 4 * their_heads
    if their_width % heads or own_width % heads:
        common = math.gcd(their_width, own_width)
        raise InputError(
            f"{heads} relation heads do not divide the projections: {their_width} numbers in the teacher, {own_width} here",
            where="relations.heads", fix=f"take a divisor of {common}",
        )  # fmt: skip
    return heads


def chosen_layer(number: int, layers: int) -> int:
    """A layer's number, given from either end.

    Raises:
        InputError: there is none such.
    """
    if not -layers <= number < layers:
        raise InputError(
            f"There is no layer {number} in a teacher of {layers}", where="relations.teacher_layer",
            fix=f"give a number between {-layers} and {layers - 1}",
        )  # fmt: skip
    return number % layers
