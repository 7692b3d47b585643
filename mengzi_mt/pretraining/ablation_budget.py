"""How many steps of pretraining fit into some hours on this machine, from measured speeds."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mengzi_mt.errors import InputError

PLANNED = 0.95
"""Share of the hours that is planned with; speeds measured over a few steps are not exact."""


@dataclass(frozen=True)
class Speeds:
    """Seconds of one process while as many run as will run later.

    Attributes:
        start: a run's beginning and end: the corpus, the model, the last checkpoint.
        step: an optimiser step of pretraining, by variant.
        held_out: the score on held-out windows.
        finetuning: all of it, by task.
        text: text tokens of a step.
    """

    start: float
    step: Mapping[str, float]
    held_out: float
    finetuning: Mapping[str, float]
    text: float

    def run(self, variant: str, steps: int) -> float:
        """One run of a variant from its start to its last score."""
        return self.start + steps * self.step[variant] + self.held_out + sum(self.finetuning.values())


@dataclass(frozen=True)
class Budget:
    """What was decided, and why.

    Attributes:
        steps: of every run.
        hours: that were asked for.
        processes: that run side by side.
        speeds: as measured.
        measuring: seconds that this took.
        seconds: expected of all runs by the clock.
    """

    steps: int
    hours: float
    processes: int
    speeds: Speeds
    measuring: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For the plan's file."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Budget:
        """What :meth:`as_json` gave."""
        return cls(**{**raw, "speeds": Speeds(**raw["speeds"])})


def mean_speeds(measured: Sequence[Mapping[str, Any]]) -> Speeds:
    """The means over processes that measured at the same time; each gives the fields of :class:`Speeds`."""

    def mean(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: mean([value[key] for value in values]) for key in values[0]}
        return sum(values) / len(values)

    return Speeds(**mean(measured))


def makespan(durations: Sequence[float], processes: int) -> float:
    """Seconds until the last job ends, when each process takes the next one of the list as soon as it is free."""
    free = [0.0] * processes
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def runs_of(variants: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """All runs in their order: every variant of the first seed, then of the second, so that whole seeds come early."""
    return [(variant, seed) for seed in seeds for variant in variants]


def fit(
    variants: Sequence[str], seeds: Sequence[int], speeds: Speeds, hours: float, processes: int, most: int, measuring: float
) -> Budget:
    """The largest equal number of steps with which all runs end within the hours.

    Args:
        variants: each is run with every seed.
        seeds: as said.
        speeds: measured.
        hours: by the clock, measuring included.
        processes: side by side.
        most: steps of a run at most.
        measuring: seconds spent already.

    Raises:
        InputError: not even one step fits.
    """

    def expected(steps: int) -> float:
        return makespan([speeds.run(variant, steps) for variant, _ in runs_of(variants, seeds)], processes)

    room = PLANNED * hours * 3600 - measuring
    if expected(1) > room:
        least = (expected(1) + measuring) / (3600 * PLANNED)
        raise InputError(
            f"{hours:g} hours are too few: starting, scoring and fine-tuning alone take {least:.2f}", where="--hours",
            fix="give more hours, or fewer seeds, variants, finetuning.tasks or finetuning.steps",
        )  # fmt: skip
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if expected(middle) <= room else (low, middle - 1)
    return Budget(low, hours, processes, speeds, measuring, expected(low))


def parts(budget: Budget, variants: Sequence[str], seeds: Sequence[int]) -> dict[str, float]:
    """Hours of process time by part, over all runs."""
    runs = runs_of(variants, seeds)
    speeds = budget.speeds
    return {
        "pretraining": sum(budget.steps * speeds.step[variant] for variant, _ in runs) / 3600,
        "fine-tuning": len(runs) * sum(speeds.finetuning.values()) / 3600,
        "starting and held-out scores": len(runs) * (speeds.start + speeds.held_out) / 3600,
        "measuring": budget.processes * budget.measuring / 3600,
    }


def sentences(budget: Budget, variants: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The budget as lines for a terminal."""
    speeds, first = budget.speeds, variants[0]
    by_part = ", ".join(f"{name} {hours:.2f}" for name, hours in parts(budget, variants, seeds).items())
    steps = ", ".join(f"{name} {speeds.step[name]:.3f} s ({speeds.step[name] / speeds.step[first]:.2f}x)" for name in variants)
    tasks = ", ".join(f"{task} {seconds:.0f} s" for task, seconds in speeds.finetuning.items())
    return [
        f"{len(variants)} variants x {len(seeds)} seeds = {len(variants) * len(seeds)} runs, {budget.processes} at a time",
        f"a step of pretraining: {steps}",
        f"fine-tuning: {tasks}; held-out windows {speeds.held_out:.0f} s; start and end of a run {speeds.start:.0f} s",
        f"each run: {budget.steps:,} steps, about {budget.steps * speeds.text:,.0f} tokens of text",
        f"hours by the clock: {(budget.seconds + budget.measuring) / 3600:.2f} of {budget.hours:g}; of processes: {by_part}",
    ]
