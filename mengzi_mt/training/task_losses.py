"""Losses apart by task, without waiting for the device in every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mengzi_mt.data.batch import IGNORED


def segment_tasks(rows: Sequence[Sequence[str]], tasks: Sequence[str]) -> Tensor:
    """The task of every segment, ``(rows, largest number of segments + 1)``: its index in ``tasks``, -1 for padding (segment 0).

    Args:
        rows: task names of each packed row's examples, in the row's order.
        tasks: all tasks.
    """
    index = {task: number for number, task in enumerate(tasks)}
    table = torch.full((len(rows), max(map(len, rows), default=0) + 1), -1, dtype=torch.long)
    for number, names in enumerate(rows):
        table[number, 1 : len(names) + 1] = torch.tensor([index[name] for name in names], dtype=torch.long)
    return table


def token_tasks(table: Tensor, decoder_segments: Tensor, labels: Tensor) -> Tensor:
    """The task of every counted target token, in the order of ``token_losses``: ``(target tokens,)``."""
    return table.gather(1, decoder_segments)[labels != IGNORED]


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
