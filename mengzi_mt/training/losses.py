"""The loss of a forward pass, the gradients of a step, and the loss of held-out examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mengzi_mt.config import Recipe, TrainingSettings
from mengzi_mt.data.batch import PackedBatch
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.flat import FlatBatch
from mengzi_mt.data.tokens import Encoder, TokenizedExample
from mengzi_mt.models.cross_entropy import LossSettings
from mengzi_mt.models.flat import flat_loss
from mengzi_mt.models.flex import flex_loss, uses_flex
from mengzi_mt.models.packed import packed_loss
from mengzi_mt.training.batches import StepBatch, make_step_batch, pack_step
from mengzi_mt.training.devices import Devices

Observe = Callable[[Tensor, PackedBatch | FlatBatch], None]


class Objective(Protocol):
    """What a run trains on in place of the plain loss."""

    def reweigh(self, module: nn.Module, batch: StepBatch, devices: Devices) -> StepBatch:
        """The step with the weights that its examples shall have; their sum over all processes stays as it is."""
        ...

    def measure(self, model: T5ForConditionalGeneration, batch: FlatBatch) -> Tensor:
        """What :meth:`reweigh` wants to know of each example; called through the module, without gradients."""
        ...

    def loss(
        self, model: T5ForConditionalGeneration, batch: FlatBatch, terms: LossSettings, *, recompute: bool
    ) -> tuple[Tensor, Tensor] | None:
        """As :meth:`LossModule.forward`, or None where the plain loss serves."""
        ...

    def parts(self, devices: Devices, weight: float) -> dict[str, float]:
        """What the last step's loss was made of, divided by the step's ``weight``; called in every process, for the log."""
        ...


class LossModule(nn.Module):
    """A model and its loss as one module, so that what wraps modules (DDP, FSDP) sees every forward pass.

    Args:
        model: in training or evaluation mode, which decides on dropout, label smoothing and z-loss.
        settings: the recipe's.
        objective: in place of the plain loss, in training.
    """

    def __init__(self, model: T5ForConditionalGeneration, settings: TrainingSettings, objective: Objective | None = None) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.objective = objective

    def forward(self, batch: PackedBatch | FlatBatch, measure: bool = False) -> tuple[Tensor, Tensor]:
        """Weighted sum of the token losses of one batch on the model's device, and each token's cross-entropy.

        With ``measure`` the objective's measure of each example, twice.
        """
        settings, training = self.settings, self.model.training
        terms = LossSettings(settings.label_smoothing if training else 0.0, settings.z_loss if training else 0.0)
        with torch.autocast(batch.labels.device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            recompute = settings.recompute and training
            if self.objective and isinstance(batch, FlatBatch):
                if measure:
                    found = self.objective.measure(self.model, batch)
                    return found, found
                own = self.objective.loss(self.model, batch, terms, recompute=recompute) if training else None
                if own is not None:
                    return own
            if uses_flex(settings.attention, batch.labels.device):
                return flex_loss(self.model, batch, terms, recompute=recompute)
            if isinstance(batch, FlatBatch):
                return flat_loss(self.model, batch, terms, recompute=recompute)
            return packed_loss(self.model, batch, terms)


def accumulate(module: nn.Module, batch: StepBatch, devices: Devices, observe: Observe | None = None) -> float:
    """Gradients of the whole step's mean token loss over all micro-batches of this process; returns its share of that loss.

    Every micro-batch is divided by the target weight of the whole step, so the result is that of one big batch. The shares of
    all processes add up to the loss; DDP and FSDP average gradients, so theirs are multiplied by the number of processes.

    Args:
        module: what :meth:`Devices.wrap` gave.
        batch: of this process.
        devices: whose gradients are summed in the step's last micro-batch.
        observe: is shown each token's cross-entropy.
    """
    loss = torch.zeros((), device=devices.device)
    own = len(batch.batches)
    parts = [*batch.batches, *batch.fillers]
    for number, part in enumerate(parts):
        with devices.synchronising(module, number == len(parts) - 1):
            value, losses = module(part.to(devices.device))
            mean = value / batch.whole.weight
            (mean * devices.count).backward()
        if number < own:
            loss += mean.detach()
            if observe:
                observe(losses, part)
    return float(loss)


@torch.no_grad()
def validation_loss(
    module: nn.Module,
    model: T5ForConditionalGeneration,
    examples: Sequence[TextExample],
    encoder: Encoder,
    recipe: Recipe,
    devices: Devices,
) -> float:
    """Mean token loss of held-out examples, without dropout; the processes share the examples out."""
    settings = recipe.training
    start = model.config.decoder_start_token_id
    batch = make_step_batch(
        examples, encoder, recipe.lengths, settings.micro_batch_tokens, start, layout=settings.layout, share=devices.share
    )
    return _mean_loss(module, model, batch, devices)


@torch.no_grad()
def tokenised_loss(
    module: nn.Module,
    model: T5ForConditionalGeneration,
    examples: Sequence[TokenizedExample],
    pad: int,
    recipe: Recipe,
    devices: Devices,
) -> float:
    """The same of tokenised examples, in flat batches."""
    tokens, start = recipe.training.micro_batch_tokens, model.config.decoder_start_token_id
    batch = pack_step(examples, recipe.lengths, tokens, pad, start, layout="flat", share=devices.share)
    return _mean_loss(module, model, batch, devices)


def _mean_loss(module: nn.Module, model: T5ForConditionalGeneration, batch: StepBatch, devices: Devices) -> float:
    training, total = model.training, 0.0
    model.eval()
    for part in batch.batches:
        total += float(module(part.to(devices.device))[1].sum())
    for filler in batch.fillers:
        module(filler.to(devices.device))
    model.train(training)
    loss, tokens = devices.total(total, float(sum(part.target_tokens for part in batch.batches)))
    return loss / tokens
