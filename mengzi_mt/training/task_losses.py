"""Losses apart by task, without waiting for the device in every step."""

from __future__ import annotations

import torch
from torch import Tensor


class TaskLosses:
    """Sums of token losses and numbers of target tokens per task, float64 on the device."""

    def __init__(self, tasks: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(2, tasks, dtype=torch.float64, device=device)  # (loss or tokens, task)

    @torch.no_grad()
    def add(self, losses: Tensor, tasks: Tensor) -> None:
        """Count the token losses ``(tokens,)`` of one micro-batch; ``tasks`` has each token's task index.

        A matrix with one entry a column is summed, not scattered with atomics, whose order on a GPU is left to chance.
        """
        apart = torch.zeros(2, self.sums.shape[1], len(losses), dtype=torch.float64, device=self.sums.device)
        where = tasks.to(self.sums.device)[None]
        apart[0].scatter_(0, where, losses.detach().to(self.sums)[None])
        apart[1].scatter_(0, where, torch.ones_like(where, dtype=torch.float64))
        self.sums += apart.sum(2)
