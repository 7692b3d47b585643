"""The losses of an encoder: L = L_mlm + λ_pos L_pos + λ_ner L_ner + λ_order L_order (docs/pretraining-encoders.md).

Tags are those of the original words and are predicted at every token of the text as the model reads it, masked or not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from mengzi_mt.pretraining.encoder_batches import EncoderBatch, EncoderStep
from mengzi_mt.pretraining.encoder_models import ObjectiveHeads, restored_logits
from mengzi_mt.pretraining.encoder_recipe import ObjectiveSettings

RISE = {"pos": 1 / 6, "ner": 1 / 3}
"""Share of the steps over which a weight rises (LERT, arXiv:2211.05344; 333,000 and 666,000 of 2,000,000 in its published code)."""


@dataclass(frozen=True)
class Prediction:
    """Of one objective in one forward pass. What is matched with a teacher has losses alone, and nothing that could be right.

    Attributes:
        losses: each prediction's cross-entropy, with gradient, ``(predictions,)``.
        logits: without gradient, ``(predictions, labels)``.
        labels: what is right, ``(predictions,)``.
    """

    losses: Tensor
    logits: Tensor | None = None
    labels: Tensor | None = None

    @property
    def right(self) -> Tensor | None:
        """Whether each was right."""
        return None if self.logits is None or self.labels is None else self.logits.argmax(-1).eq(self.labels)


class Guide(Protocol):
    """A teacher beside the objectives."""

    @property
    def weights(self) -> dict[str, float]:
        """Of the objectives that count, and of what is matched with the teacher."""
        ...

    def reads(self, batch: EncoderBatch) -> EncoderBatch:
        """What teacher and student read of a batch."""
        ...

    def watching(self, model: PreTrainedModel) -> AbstractContextManager[Callable[[EncoderBatch], dict[str, Prediction]]]:
        """Around a forward pass of the student; what is given tells then, inside, how far it was from the teacher's."""
        ...


def objective_weights(settings: ObjectiveSettings, step: int, steps: int) -> dict[str, float]:
    """λ of every objective at optimiser step ``step`` (counted from 0) of ``steps``.

    With LERT's schedule λ(t) = λ min(1, t / (r T)), where pos has r = 1/6 and ner 1/3: what is easier is learnt first.
    """
    weights = {"mlm": 1.0, "pos": settings.pos, "ner": settings.ner, "order": settings.order_weight}
    if settings.schedule == "lert":
        weights |= {name: weights[name] * min(1.0, step / (share * steps)) for name, share in RISE.items()}
    return {name: weights[name] for name in settings.names}


class EncoderLosses(nn.Module):
    """An encoder, its heads and their losses.

    Args:
        model: with the head of masked language modelling.
        heads: for the objectives that are trained beside it.
        precision: ``float32`` or ``bfloat16`` of matrix products; losses are in float32.
        guide: a teacher.
    """

    def __init__(
        self, model: PreTrainedModel, heads: ObjectiveHeads, precision: str = "float32", guide: Guide | None = None
    ) -> None:
        super().__init__()
        self.model, self.heads, self.precision, self.guide = model, heads, precision, guide

    def states(self, batch: EncoderBatch, ids: Tensor) -> Tensor:
        """The encoder's last states of rows laid out as the batch's; ``(rows, length)`` to ``(rows, length, hidden)``."""
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            found: Tensor = self.model.base_model(
                input_ids=ids, attention_mask=batch.mask, token_type_ids=batch.segments
            ).last_hidden_state
        return found

    def forward(self, batch: EncoderBatch) -> dict[str, Prediction]:
        """The predictions of every objective that has any in the batch."""
        device = batch.input_ids.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            if self.guide is not None:
                return self._guided(self.guide, self.guide.reads(batch))
            hidden = self.states(batch, batch.input_ids)  # (rows, length, hidden)
            states = hidden.flatten(0, 1)
            logits = {"mlm": restored_logits(self.model, states[batch.restored])}
            if self.heads.tags:
                text = states[batch.tagged]
                logits |= {name: head(text) for name, head in self.heads.tags.items()}
            if self.heads.order is not None and len(batch.ordered):
                logits["order"] = self.heads.order_logits(hidden[batch.ordered, 0])
        labels = {"mlm": batch.originals, "pos": batch.pos, "ner": batch.ner, "order": batch.orders}
        return {name: _prediction(found, labels[name]) for name, found in logits.items()}

    def _guided(self, guide: Guide, batch: EncoderBatch) -> dict[str, Prediction]:
        with guide.watching(self.model) as compared:
            states = self.model.base_model(
                input_ids=batch.input_ids, attention_mask=batch.mask, token_type_ids=batch.segments
            ).last_hidden_state.flatten(0, 1)
            found = compared(batch)
        if "mlm" in guide.weights:
            found["mlm"] = _prediction(restored_logits(self.model, states[batch.restored]), batch.originals)
        return found


def _prediction(logits: Tensor, labels: Tensor) -> Prediction:
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return Prediction(cross_entropy(exact, labels, reduction="none"), logits.detach(), labels)


class RowAware(Protocol):
    """What :class:`mengzi_mt.pretraining.encoder_instances.EncoderInstances` does to the masked-language loss."""

    def reweigh(self, module: EncoderLosses, step: EncoderStep, device: torch.device) -> EncoderStep:
        """The step with other weights of its rows."""

    def loss(self, module: EncoderLosses, batch: EncoderBatch, restored: Prediction) -> tuple[Tensor, Tensor | None]:
        """The sum of a pass's losses, and each row's divergence where it is computed."""


Observe = Callable[[str, Tensor], None]


def accumulate(
    module: EncoderLosses,
    step: EncoderStep,
    weights: dict[str, float],
    device: torch.device,
    observe: Observe | None = None,
    instance: RowAware | None = None,
) -> Tensor:
    """Gradients of the step's loss over all of its forward passes; returns the loss, on the device.

    Each objective is the mean over all of its predictions in the step, so the result does not depend on how the step was cut.

    Args:
        module: what is trained.
        step: its forward passes.
        weights: λ of every objective.
        device: where the module is.
        observe: hears each prediction's loss, and with ``instance`` each row's divergence, as they are without weights.
        instance: changes the masked-language loss (``objectives.instance``).
    """
    total = torch.zeros((), device=device)
    if instance is not None:
        step = instance.reweigh(module, step, device)
    for part in step.batches:
        batch = part.to(device)
        predictions = module(batch)
        sums, divergence = {name: found.losses.sum() for name, found in predictions.items()}, None
        if instance is not None:
            sums["mlm"], divergence = instance.loss(module, batch, predictions["mlm"])
        parts = [weights[name] * summed / step.count(name) for name, summed in sums.items()]
        loss = torch.stack(parts).sum()
        loss.backward()
        total += loss.detach()
        if observe is not None:
            for name, found in predictions.items():
                observe(name, found.losses.detach())
            if divergence is not None:
                observe("consistency", divergence.detach())
    return total


@torch.no_grad()
def evaluate(module: EncoderLosses, step: EncoderStep, device: torch.device) -> dict[str, tuple[float, float | None]]:
    """Mean loss of every objective and share of right predictions where there can be some, without dropout."""
    training = module.training
    module.eval()
    losses: dict[str, float] = {}
    right: dict[str, float] = {}
    for batch in step.batches:
        for name, found in module(batch.to(device)).items():
            losses[name] = losses.get(name, 0.0) + float(found.losses.double().sum())
            if found.right is not None:
                right[name] = right.get(name, 0.0) + float(found.right.sum())
    module.train(training)
    return {
        name: (loss / step.count(name), right[name] / step.count(name) if name in right else None) for name, loss in losses.items()
    }
