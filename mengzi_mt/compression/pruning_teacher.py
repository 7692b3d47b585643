"""Training a pruned T5 with the logits of the model that it was (ROSITA's way; the loss is Hinton's, arXiv:1503.02531)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import T5ForConditionalGeneration

from mengzi_mt.compression.pruning_recipe import TeachingSettings
from mengzi_mt.data.flat import FlatBatch
from mengzi_mt.models.cross_entropy import CHUNK_BYTES, LossSettings, linear_cross_entropy
from mengzi_mt.models.flat import flat_states
from mengzi_mt.models.t5 import output_scale
from mengzi_mt.training.batches import StepBatch
from mengzi_mt.training.devices import Devices


class Taught:
    """The objective: ``Σ_t w_t ((1 - a) CE_t + a τ² KL(softmax(teacher_t / τ) ‖ softmax(student_t / τ)))``.

    Args:
        teacher: of the same vocabulary; it is put into evaluation mode, and its weights stay as they are.
        settings: a and τ.
    """

    def __init__(self, teacher: T5ForConditionalGeneration, settings: TeachingSettings) -> None:
        self.teacher, self.settings = teacher.eval().requires_grad_(False), settings

    def reweigh(self, module: nn.Module, batch: StepBatch, devices: Devices) -> StepBatch:
        """The step as it is."""
        return batch

    def measure(self, model: T5ForConditionalGeneration, batch: FlatBatch) -> Tensor:
        """Nothing is asked of the examples."""
        return batch.weights.new_zeros(0)

    def loss(
        self, model: T5ForConditionalGeneration, batch: FlatBatch, terms: LossSettings, *, recompute: bool
    ) -> tuple[Tensor, Tensor]:
        """The sum over the target tokens, and each token's cross-entropy."""
        nn.Module.to(self.teacher, batch.labels.device)
        states = flat_states(model, batch, recompute=recompute) * output_scale(model)
        with torch.no_grad():
            theirs = flat_states(self.teacher, batch) * output_scale(self.teacher)
        hard, losses = linear_cross_entropy(states, model.lm_head.weight, batch.labels, batch.weights, terms)
        heads = model.lm_head.weight, self.teacher.lm_head.weight
        soft = divergence(states, theirs, heads, batch.weights, self.settings.temperature)
        share = self.settings.weight
        return (1 - share) * hard + share * soft, losses


def divergence(states: Tensor, theirs: Tensor, heads: tuple[Tensor, Tensor], weights: Tensor, temperature: float) -> Tensor:
    """``Σ_t w_t τ² KL(teacher_t ‖ student_t)``; the logits of some hundred tokens are held at a time, and made twice.

    Args:
        states: the student's, ``(tokens, width)``, ready for the head.
        theirs: the teacher's.
        heads: the student's and the teacher's, ``(vocabulary, width)`` each.
        weights: of each token.
        temperature: τ.
    """

    def part(own: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        log_q = functional.log_softmax(functional.linear(own, heads[0]).float() / temperature, dim=-1)
        log_p = functional.log_softmax(functional.linear(other, heads[1]).float() / temperature, dim=-1)
        return (weight * (log_p.exp() * (log_p - log_q)).sum(-1)).sum()

    size = max(1, CHUNK_BYTES // (4 * len(heads[0])))
    pieces = zip(states.split(size), theirs.split(size), weights.split(size), strict=True)
    sums = [checkpoint(part, *piece, use_reentrant=False) for piece in pieces]
    return temperature**2 * torch.stack(sums).sum()
