"""Instance-aware denoising: losses that know how much the corruption damaged an instance, and how well it was restored.

After Zhang, Zhao, Zhou, "Instance Regularization for Discriminative Language Model Pre-training" (EMNLP 2022,
arXiv:2210.05471). The definitions here are our own (docs/pretraining.md says where they differ): ``x`` is the original text,
``x'`` the corrupted one, ``x^`` the one that the model restores, ``h(·)`` the mean of the encoder's last states.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.flat import FlatBatch, Originals
from mengzi_mt.denoising_settings import InstanceSettings
from mengzi_mt.models.cross_entropy import CHUNK_BYTES, LossSettings, linear_cross_entropy
from mengzi_mt.models.flat import encoder_states, flat_states
from mengzi_mt.training.batches import StepBatch
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.run import Run

SMALLEST = 1e-6
"""Least distance that counts: its power may be negative."""


def with_objective(run: Run) -> Run:
    """The run with the objective that its recipe's ``denoising.instance`` describes, or as it is."""
    settings = run.recipe.denoising.instance if run.recipe.denoising else None
    return replace(run, objective=InstanceAware(settings)) if settings and settings.reads_originals else run


class InstanceAware:
    """The objective of ``denoising.instance``. What needs no model, ``damage``, is in the examples' weights already."""

    def __init__(self, settings: InstanceSettings) -> None:
        self.settings = settings

    def reweigh(self, module: nn.Module, batch: StepBatch, devices: Devices) -> StepBatch:
        """Weigh denoising examples by ``distance ** settings.distance``, 1 on average; see :func:`weigh`.

        The distances are the current model's, measured before the step without dropout.
        """
        if not self.settings.distance:
            return batch
        parts = [part for part in batch.batches if isinstance(part, FlatBatch)]
        was_training = module.training
        module.eval()
        with torch.no_grad():
            found = [module(part.to(devices.device), True)[0].cpu() for part in parts]
        module.train(was_training)
        values = [far.clamp(min=SMALLEST) ** self.settings.distance for far in found]
        return replace(batch, batches=weigh(parts, values, self.settings.most, devices))

    def measure(self, model: T5ForConditionalGeneration, batch: FlatBatch) -> Tensor:
        """Distance of each denoising example from its original, float32 ``(texts,)``; two passes of the encoder."""
        texts = batch.originals
        if texts is None:
            return torch.zeros(0, device=batch.labels.device)
        groups = [(group.examples, group.encoder.to(batch.labels.device)) for group in batch.groups]
        sizes = torch.tensor([inputs for inputs, _ in batch.lengths], device=batch.labels.device)
        corrupted = mean_states(encoder_states(model, batch.encoder_ids, groups), sizes)[texts.examples]
        original = mean_states(encoder_states(model, texts.ids, texts.groups), texts.lengths)
        return semantic_distance(corrupted, original)

    def parts(self, devices: Devices, weight: float) -> dict[str, float]:
        """Nothing is told apart."""
        return {}

    def loss(
        self, model: T5ForConditionalGeneration, batch: FlatBatch, terms: LossSettings, *, recompute: bool
    ) -> tuple[Tensor, Tensor] | None:
        """Cross-entropy with tolerance, plus consistency; None where there is nothing to restore.

        The sum over target tokens ``t`` of instances ``i``: ``Σ w_t (1 - ρ s_i [wrong_t]) CE_t + λ Σ_i W_i D_i``, where ``W_i`` is
        the sum of ``w_t`` of the instance, ``D_i`` the divergence of original and restored text and ``s_i = exp(-D_i)``.
        """
        texts, settings = batch.originals, self.settings
        if texts is None or not settings.restores:
            return None
        states = flat_states(model, batch, recompute=recompute)
        if getattr(model.config, "scale_decoder_outputs", False):
            states = states * model.model_dim**-0.5
        head = model.lm_head.weight
        filled = restored_tokens(states.detach()[texts.targets], head.detach(), sampled=settings.sampled)
        texts_restored = texts.ids.index_copy(0, texts.noise, filled)
        original, restored = (
            mean_states(encoder_states(model, ids, texts.groups, recompute=recompute), texts.lengths)
            for ids in (texts.ids, texts_restored)
        )
        divergence = symmetric_kl(original, restored)
        weights = tolerant_weights(batch, texts, filled, divergence.detach(), settings.tolerance)
        total, losses = linear_cross_entropy(states, head, batch.labels, weights, terms)
        if settings.consistency:
            total = total + settings.consistency * (example_weights(batch)[texts.examples] * divergence).sum()
        return total, losses


def mean_states(states: Tensor, lengths: Tensor) -> Tensor:
    """Mean of each text's states, float32 (or float64) ``(texts, width)``.

    Args:
        states: of texts in one line, ``(tokens, width)``.
        lengths: of each text.
    """
    exact = states if states.dtype == torch.float64 else states.float()
    return torch.stack([part.mean(0) for part in exact.split(lengths.tolist())])


def semantic_distance(one: Tensor, other: Tensor) -> Tensor:
    """``1 - cos(one, other)`` of each row, between 0 and 2."""
    return 1 - functional.cosine_similarity(one, other, dim=-1)


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """``KL(p || q) + KL(q || p)`` of each row, with ``p`` and ``q`` the softmax over the width of ``one`` and of ``other``.

    Both sides have gradients. (In the published code the term of original and restored text has none.)
    """
    log_p, log_q = functional.log_softmax(one, dim=-1), functional.log_softmax(other, dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


@torch.no_grad()
def restored_tokens(states: Tensor, head: Tensor, *, sampled: bool) -> Tensor:
    """The tokens that the decoder puts in the place of the noise, reading the true ones before it; ``(noise tokens,)``.

    Args:
        states: ready for the head, ``(noise tokens, width)``.
        head: ``(vocabulary, width)``.
        sampled: draw them by their probabilities instead of taking the most probable ones.
    """
    chosen = []
    for part in states.split(max(1, CHUNK_BYTES // (4 * len(head)))):
        chosen.append(drawn_tokens(functional.linear(part.to(head.dtype), head), sampled=sampled))
    return torch.cat(chosen)


def drawn_tokens(logits: Tensor, *, sampled: bool) -> Tensor:
    """The most probable token of each line of ``(tokens, vocabulary)``, or one drawn by its probability (Gumbel's way)."""
    exact = logits.float()
    return (exact - torch.empty_like(exact).exponential_().log() if sampled else exact).argmax(1)


def tolerant_weights(batch: FlatBatch, texts: Originals, filled: Tensor, divergence: Tensor, tolerance: float) -> Tensor:
    """The weights of the target tokens, less where a token was restored otherwise but the text reads as the original does.

    ``w_t (1 - tolerance · exp(-D_i))`` for a noise token that was not restored; ``w_t`` for all others.
    """
    if not tolerance:
        return batch.weights
    wrong = filled != texts.ids[texts.noise]
    factor = 1 - tolerance * torch.exp(-divergence.float())[texts.members] * wrong
    return batch.weights.index_copy(0, texts.targets, batch.weights[texts.targets] * factor)


def example_weights(batch: FlatBatch) -> Tensor:
    """What each example weighs in the loss: the sum over its target tokens, ``(examples,)``."""
    return torch.stack([part.sum() for part in batch.weights.split([targets for _, targets in batch.lengths])])


def weigh(parts: list[FlatBatch], values: list[Tensor], most: float, devices: Devices) -> list[FlatBatch]:
    """The batches of a step with their denoising examples weighed by ``values``, and all else as it was.

    Divided by their mean over the step, kept between ``1 / most`` and ``most``, and divided by that mean: so the examples' weights
    sum to what they did. The mean is over all processes and weighted as the loss is.

    Args:
        parts: of this process.
        values: of each part's originals, not negative.
        most: as said.
        devices: of the run.
    """
    held = [example_weights(part)[part.originals.examples] if part.originals else torch.zeros(0) for part in parts]
    own, value = torch.cat([torch.zeros(0), *held]).double(), torch.cat([torch.zeros(0), *values]).double()

    def mean(of: Tensor) -> float:
        weighed, all_of_them = devices.total(float((own * of).sum()), float(own.sum()))
        return weighed / all_of_them if all_of_them else 0.0

    middle = mean(value)
    if not middle > 0:
        return parts
    kept = (value / middle).clamp(1 / most, most)
    kept = (kept / mean(kept)).float()
    made = []
    for part, weights in zip(parts, kept.split([len(one) for one in values]), strict=True):
        if part.originals is None:
            made.append(part)
            continue
        factors = torch.ones(len(part.lengths)).index_copy(0, part.originals.examples, weights)
        spread = factors.repeat_interleave(torch.tensor([targets for _, targets in part.lengths]))
        made.append(replace(part, weights=part.weights * spread))
    return made
