"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mengzi_mt.config import OptimiserSettings


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """The learning rate of optimiser step ``step`` (counted from 0) of ``steps``.

    Linear warm-up over ``warmup`` steps; then constant, linear or cosine decay to ``final_ratio`` of the highest rate,
    or the inverse square root of T5 (arXiv:1910.10683, section 3.1.2), which starts to fall where the warm-up ends.
    """
    high, warmup = settings.learning_rate, settings.warmup
    if step < warmup:
        return high * (step + 1) / warmup
    if settings.schedule == "constant":
        return high
    if settings.schedule == "inverse_sqrt":
        return high * math.sqrt(max(warmup, 1) / max(step, 1))
    progress = (step - warmup) / max(1, steps - warmup)
    remaining = 1 - progress if settings.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return high * (settings.final_ratio + (1 - settings.final_ratio) * remaining)


def make_optimiser(model: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) or Adafactor (arXiv:1804.04235). Norms and biases take no weight decay."""
    decayed, plain = [], []
    for parameter in _unique(model.parameters()):
        (decayed if parameter.ndim > 1 else plain).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings.name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=settings.learning_rate, relative_step=False, scale_parameter=False, warmup_init=False)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, foreach=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def _unique(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for parameter in parameters if parameter.requires_grad}.values())
