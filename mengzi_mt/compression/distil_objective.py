"""What a T5 learns from its teacher in each forward pass: an :class:`mengzi_mt.training.losses.Objective`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mengzi_mt.compression.distil_logits import TaughtTokens, distillation_loss
from mengzi_mt.compression.distil_recipe import LossSettings
from mengzi_mt.compression.distil_relations import (
    Attending,
    Layout,
    Projections,
    chosen_layer,
    recorded,
    relation_heads,
    relation_loss,
)
from mengzi_mt.data.flat import FlatBatch, Side
from mengzi_mt.errors import InputError
from mengzi_mt.models.cross_entropy import LossSettings as TokenTerms
from mengzi_mt.models.cross_entropy import linear_cross_entropy
from mengzi_mt.models.flat import flat_states, relative_bias
from mengzi_mt.models.t5 import output_scale
from mengzi_mt.pretraining.instances import example_weights
from mengzi_mt.training.batches import StepBatch
from mengzi_mt.training.devices import Devices

PLACES = ("encoder", "decoder", "cross")


class Distillation:
    """The losses of a recipe against one teacher. The step's sums of each part are kept for the log.

    Args:
        teacher: is put into evaluation mode; its weights stay as they are, less the rounding of ``precision``.
        student: the model that will be trained, to check the shapes.
        losses: of the recipe.
        precision: of the teacher's products.
        pieces: of the tokenizer, which both share.

    Raises:
        InputError: shapes whose relations cannot be matched, or a vocabulary smaller than the tokenizer's.
    """

    def __init__(
        self,
        teacher: T5ForConditionalGeneration,
        student: T5ForConditionalGeneration,
        losses: LossSettings,
        precision: str,
        pieces: int,
    ) -> None:
        for name, model in (("teacher", teacher), ("student", student)):
            if model.config.vocab_size < pieces:
                raise InputError(
                    f"The {name} has {model.config.vocab_size:,} pieces, the tokenizer {pieces:,}", where=name,
                    fix="use the tokenizer that belongs to the checkpoint",
                )  # fmt: skip
        self.teacher, self.losses, self.bfloat16 = teacher.eval().requires_grad_(False), losses, precision == "bfloat16"
        self.pieces = pieces
        self._head: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        if relations := losses.relations:
            sizes = [(model.config.num_heads, model.config.num_heads * model.config.d_kv) for model in (teacher, student)]
            self.heads = relation_heads(relations.heads, sizes[0], sizes[1], relations.method)
            for stack in (teacher.encoder, teacher.decoder):
                chosen_layer(relations.teacher_layer, len(stack.block))  # type: ignore[arg-type]
        if self.bfloat16:
            for stack in (teacher.encoder, teacher.decoder):
                for layer in stack.modules():
                    if isinstance(layer, nn.Linear):
                        layer.to(torch.bfloat16)

    def reweigh(self, module: nn.Module, batch: StepBatch, devices: Devices) -> StepBatch:
        """The step as it is; the last one's sums are forgotten."""
        self._sums = {}
        return batch

    def measure(self, model: T5ForConditionalGeneration, batch: FlatBatch) -> Tensor:
        """Nothing is asked of the examples."""
        return batch.weights.new_zeros(0)

    def parts(self, devices: Devices, weight: float) -> dict[str, float]:
        """The parts of the last step's loss, unweighted, over all processes."""
        names = ["cross_entropy"]
        names += ["logits"] if self.losses.logits else []
        names += [name for name in PLACES if self._place_weight(name)]
        sums = [float(self._sums[name]) if name in self._sums else 0.0 for name in names]
        return {name: value / weight for name, value in zip(names, devices.total(*sums), strict=True)}

    def loss(
        self, model: T5ForConditionalGeneration, batch: FlatBatch, terms: TokenTerms, *, recompute: bool
    ) -> tuple[Tensor, Tensor]:
        """The recipe's losses of one pass, and each token's cross-entropy; see :class:`mengzi_mt.training.losses.Objective`."""
        own_layers = self._attentions(model, -1)
        with recorded(own_layers) as own:
            states = flat_states(model, batch, recompute=recompute) * output_scale(model)
        with self._reading(batch.labels.device) as teacher, recorded(self._attentions(teacher, self._teacher_layer)) as theirs:
            taught = flat_states(teacher, batch) * output_scale(teacher)
        total, losses = self._token_loss(states, model.lm_head.weight, batch, taught, terms)
        for name in own_layers:
            found = self._relation_loss(name, (self.teacher, theirs[name]), (model, own[name]), batch)
            self._note(name, found)
            total = total + self._place_weight(name) * found
        return total, losses

    @property
    def _teacher_layer(self) -> int:
        return self.losses.relations.teacher_layer if self.losses.relations else -1

    def _place_weight(self, name: str) -> float:
        return float(getattr(self.losses.relations, name)) if self.losses.relations else 0.0

    def _note(self, name: str, value: Tensor) -> None:
        before = self._sums.get(name)
        self._sums[name] = value.detach() if before is None else before + value.detach()

    @contextmanager
    def _reading(self, device: torch.device) -> Iterator[T5ForConditionalGeneration]:
        """The teacher on the device; inside, nothing keeps gradients, and products are made in its precision."""
        if self._head is None or self._head.device != device:
            nn.Module.to(self.teacher, device)
            self._head = self.teacher.lm_head.weight[: self.pieces]
            self._head = self._head.to(torch.bfloat16) if self.bfloat16 else self._head
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            yield self.teacher

    def _token_loss(
        self, states: Tensor, head: Tensor, batch: FlatBatch, taught: Tensor, terms: TokenTerms
    ) -> tuple[Tensor, Tensor]:
        hard, soft = self.losses.hard, self.losses.logits
        if soft is None:
            total, losses = linear_cross_entropy(states, head, batch.labels, batch.weights, terms)
            total = hard * total
        else:
            assert self._head is not None
            teacher = TaughtTokens(taught.to(self._head.dtype), self._head)
            total, losses, apart = distillation_loss(
                states, head, batch.labels, batch.weights, teacher,
                hard=hard, soft=soft.weight, temperature=soft.temperature, terms=terms,
            )  # fmt: skip
            self._note("logits", (batch.weights * apart).sum())
        self._note("cross_entropy", (batch.weights * losses).sum())
        return total, losses

    def _attentions(self, model: Any, layer: int) -> dict[str, tuple[nn.Module, nn.Module, nn.Module]]:
        """The layers that make queries, keys and values in the places that count."""
        last = {
            "encoder": model.encoder.block[layer].layer[0].SelfAttention,
            "decoder": model.decoder.block[layer].layer[0].SelfAttention,
            "cross": model.decoder.block[layer].layer[1].EncDecAttention,
        }
        return {name: (one.q, one.k, one.v) for name, one in last.items() if self._place_weight(name)}

    def _relation_loss(
        self, name: str, teacher: tuple[Any, Projections], student: tuple[Any, Projections], batch: FlatBatch
    ) -> Tensor:
        """One place's relations: the mean over an example's rows, weighted as the example's target tokens are in the loss."""
        relations = self.losses.relations
        assert relations is not None
        weights, lengths = example_weights(batch), torch.tensor(batch.lengths, device=batch.labels.device)
        biases = [self._bias(model, name, batch) for model, _ in (teacher, student)]
        losses, first = [], 0
        for group in (group.to(batch.labels.device) for group in batch.groups):
            members = slice(first, first + group.examples)
            first = members.stop
            rows = {
                side: _row_weights(getattr(group, side), weights[members] / lengths[members, place])
                for place, side in enumerate(("encoder", "decoder"))
            }
            asking, asked = ("decoder", "encoder") if name == "cross" else (name, name)
            sides = (getattr(group, asking), getattr(group, asked))
            pair = [
                _attending(model, found, sides, group.examples, bias)
                for (model, found), bias in zip((teacher, student), biases, strict=True)
            ]
            layout = Layout(rows[asking], rows[asked], causal=name == "decoder", cross=name == "cross")
            losses.append(relation_loss(relations.method, self.heads, pair[0], pair[1], layout))
        return torch.stack(losses).sum()

    def _bias(self, model: Any, name: str, batch: FlatBatch) -> Tensor | None:
        """Of relative positions, for MiniLM's attention distributions; cross-attention has none."""
        relations = self.losses.relations
        if name == "cross" or relations is None or relations.method != "minilm":
            return None
        longest = max(getattr(group, name).length for group in batch.groups)
        return relative_bias(getattr(model, name), longest, causal=False)


def _attending(model: Any, found: Projections, sides: tuple[Side, Side], texts: int, bias: Tensor | None) -> Attending:
    asking, asked = sides
    blocks = Projections(*(_block(part, side, texts) for part, side in zip(found, (asking, asked, asked), strict=True)))
    cut = None if bias is None else bias[:, : asking.length, : asked.length]
    return Attending(blocks, model.config.num_heads, 1.0, model.config.d_kv**0.5, cut)


def _block(tokens: Tensor, side: Side, texts: int) -> Tensor:
    """A group's tokens as a padded block, ``(texts, length, width)``."""
    part = tokens[side.start : side.stop]
    if side.gather is not None:
        part = part.index_select(0, side.gather)
    return part.view(texts, side.length, -1)


def _row_weights(side: Side, each: Tensor) -> Tensor:
    """A text's weight at each of its tokens, ``(texts, length)``; 0 for padding."""
    rows = each[:, None].expand(-1, side.length)
    return rows if side.blocked is None else rows.masked_fill(side.blocked, 0.0)
