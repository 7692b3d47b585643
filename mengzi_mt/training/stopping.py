"""The best validation so far, and when to give up waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mengzi_mt.config import StoppingSettings
from mengzi_mt.errors import InputError, nearest


@dataclass(frozen=True)
class Verdict:
    """What a validation means: whether it is the best so far, and whether the run should stop."""

    improved: bool
    stop: bool


class BestScore:
    """Follows one score over a run's validations.

    The loop asks after each validation and, where ``improved``, saves a checkpoint and gives ``step`` to
    ``prune_checkpoints``; where ``stop``, it ends as after its last step. ``state_dict`` belongs in the checkpoint, so a resumed
    run stops where an uninterrupted one does.
    """

    def __init__(self, settings: StoppingSettings) -> None:
        self.settings = settings
        self.value: float | None = None
        self.step: int | None = None
        self.waited = 0

    def update(self, step: int, record: Mapping[str, Any]) -> Verdict:
        """Look at the record of the validation after ``step`` optimiser steps. A score that is no number is no improvement.

        Raises:
            InputError: the record has no such score.
        """
        value = pick_score(record, self.settings.score)
        improved = math.isfinite(value) and (self.value is None or self._gain(value) > self.settings.min_delta)
        if improved:
            self.value, self.step, self.waited = value, step, 0
        else:
            self.waited += 1
        tired = self.settings.patience is not None and self.waited >= self.settings.patience
        return Verdict(improved, tired or self._reached(value))

    def _reached(self, value: float) -> bool:
        goal = self.settings.goal
        return goal is not None and (value <= goal if self.settings.mode == "min" else value >= goal)

    def _gain(self, value: float) -> float:
        assert self.value is not None
        return self.value - value if self.settings.mode == "min" else value - self.value

    def sentence(self) -> str:
        """The best so far, for the log."""
        if self.value is None:
            return f"no {self.settings.score} yet"
        return f"best {self.settings.score} {self.value:.4f} at step {self.step}, {self.waited} validations ago"

    def state_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "score": self.settings.score,
            "mode": self.settings.mode,
            "value": self.value,
            "step": self.step,
            "waited": self.waited,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the best by another score means nothing here and is forgotten."""
        if (state.get("score"), state.get("mode")) == (self.settings.score, self.settings.mode):
            self.value, self.step, self.waited = state["value"], state["step"], state["waited"]


def pick_score(record: Mapping[str, Any], name: str) -> float:
    """The number under ``name`` in a validation's record; dots lead into nested ones (``validation_losses.lcqmc``).

    Raises:
        InputError: there is none of that name; the message names those that there are.
    """
    known = _numbers(record)
    if name not in known:
        raise InputError(
            f"The validation gives no score {name!r}", where="stopping.score", fix=nearest(name, set(known) - {"step"})
        )
    return known[name]


def _numbers(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found
