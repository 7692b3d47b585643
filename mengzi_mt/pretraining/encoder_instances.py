"""Instance-aware masked language modelling: the masked-language loss of a row knows how much the masking damaged it, and how well
it was restored.

The same definitions as of a T5 (:mod:`mengzi_mt.pretraining.instances`, docs/pretraining-encoders.md): ``x`` is the row before the
corruption, ``x'`` the row that is read, ``x^`` the row with the model's own predictions in the places to restore, ``h(·)`` the mean
of the encoder's last states. ``damage`` needs no model and is in the batches' weights already.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mengzi_mt.data.denoising import mean_one
from mengzi_mt.denoising_settings import InstanceSettings
from mengzi_mt.pretraining.encoder_batches import EncoderBatch, EncoderStep
from mengzi_mt.pretraining.encoder_losses import EncoderLosses, Prediction
from mengzi_mt.pretraining.instances import SMALLEST, drawn_tokens, mean_states, semantic_distance, symmetric_kl


class EncoderInstances:
    """The objective of ``objectives.instance``."""

    def __init__(self, settings: InstanceSettings) -> None:
        self.settings = settings

    def reweigh(self, module: EncoderLosses, step: EncoderStep, device: torch.device) -> EncoderStep:
        """Multiply the rows' weights by ``distance ** settings.distance``, 1 on average over the step's predictions.

        The distances are the current model's, measured before the step without dropout; two passes of the encoder.
        """
        if not self.settings.distance:
            return step
        training = module.training
        module.eval()
        with torch.no_grad():
            found = [self._distances(module, batch.to(device)).cpu() for batch in step.batches]
        module.train(training)
        values = torch.cat(found).clamp(min=SMALLEST).double().numpy() ** self.settings.distance
        counts = np.concatenate([row_weights(batch).double().numpy() for batch in step.batches])
        factors = torch.from_numpy(mean_one(values, counts, self.settings.most)).float()
        batches = []
        for batch, own in zip(step.batches, factors.split([len(rows) for rows in found]), strict=True):
            batches.append(replace(batch, weights=batch.weights * own[row_of(batch)]))
        return replace(step, batches=batches)

    def loss(self, module: EncoderLosses, batch: EncoderBatch, restored: Prediction) -> tuple[Tensor, Tensor | None]:
        """The sum over the predictions of a pass, and each row's divergence ``D_i`` where something is restored.

        ``Σ_t v_i (1 - ρ exp(-D_i) [t was restored otherwise]) CE_t + λ Σ_i W_i D_i``, where ``v_i`` is the row's weight and ``W_i``
        the sum of it over the row's predictions.
        """
        settings = self.settings
        if not settings.restores:
            return (batch.weights * restored.losses).sum(), None
        assert restored.logits is not None
        filled = drawn_tokens(restored.logits, sampled=settings.sampled)
        texts = (original_ids(batch), with_restored(batch, filled))
        original, other = (row_means(batch, module.states(batch, ids)) for ids in texts)
        divergence = symmetric_kl(original, other)
        wrong = filled != batch.originals
        tolerated = settings.tolerance * torch.exp(-divergence.detach())[row_of(batch)] * wrong
        total = (batch.weights * (1 - tolerated) * restored.losses).sum()
        if settings.consistency:
            total = total + settings.consistency * (row_weights(batch) * divergence).sum()
        return total, divergence

    @staticmethod
    def _distances(module: EncoderLosses, batch: EncoderBatch) -> Tensor:
        corrupted, original = (row_means(batch, module.states(batch, ids)) for ids in (batch.input_ids, original_ids(batch)))
        return semantic_distance(corrupted, original)


def row_of(batch: EncoderBatch) -> Tensor:
    """The row of each token to restore, ``(masked,)``."""
    return batch.restored // batch.input_ids.shape[1]


def row_weights(batch: EncoderBatch) -> Tensor:
    """What each row counts in the loss: the sum over its predictions, ``(rows,)``."""
    return torch.zeros(len(batch.input_ids), device=batch.weights.device).index_add(0, row_of(batch), batch.weights)


def with_restored(batch: EncoderBatch, tokens: Tensor) -> Tensor:
    """The rows with ``tokens`` ``(masked,)`` in the places to restore, ``(rows, length)``."""
    return batch.input_ids.flatten().index_copy(0, batch.restored, tokens).view_as(batch.input_ids)


def original_ids(batch: EncoderBatch) -> Tensor:
    """The rows as they were before the corruption, ``(rows, length)``."""
    return with_restored(batch, batch.originals)


def row_means(batch: EncoderBatch, states: Tensor) -> Tensor:
    """Mean over each row's tokens, special ones included and padding left out; ``(rows, length, hidden)`` to ``(rows, hidden)``."""
    return mean_states(states[batch.mask], batch.mask.sum(1))
