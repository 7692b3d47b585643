"""Watching a run: one tracker that the loop calls, from counts per step to records in ``metrics.jsonl`` and wandb.

A record covers the steps since the last one::

    {"step": 50, "loss": 2.31, "task_loss": {"lcqmc": 0.71}, "task_tokens": {"lcqmc": 9120}, "task_examples": {"lcqmc": 130},
     "padding": 0.012, "tokens_per_second": 6120.5, "step_seconds": 0.84, "data_wait": 0.003, "mfu": 0.61, …}
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mengzi_mt.config import TrackingSettings
from mengzi_mt.training.curves import short
from mengzi_mt.training.flops import Work, measure_matmul_peak, training_flops
from mengzi_mt.training.progress import make_display
from mengzi_mt.training.run_status import MetricsFile, Outcome, now, write_status
from mengzi_mt.training.task_losses import TaskLosses
from mengzi_mt.training.wandb_sink import WandbSink

Reduce = Callable[[Tensor], Tensor]
_CREDIBLE = 0.95
"""No training reaches more of the peak than this."""
_SAVED = ("loss", "tokens", "slots", "steps")
_TIMED = ("timed_tokens", "timed_steps", "timed_flops")
"""Counted since this process started: a checkpoint does not hold them, because it does not hold the seconds that they took."""


class Steps(Protocol):
    """What the tracker reads of a recipe's section ``training``."""

    @property
    def steps(self) -> int:
        """Of the whole run."""

    @property
    def precision(self) -> str:
        """Of matrix products, as torch names it."""


class Watched(Protocol):
    """What the tracker reads of a recipe."""

    @property
    def name(self) -> str:
        """Of the run."""

    @property
    def run_dir(self) -> Path:
        """Where it writes."""

    @property
    def training(self) -> Steps:
        """Its length and precision."""

    @property
    def tracking(self) -> TrackingSettings:
        """How it is watched."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The whole recipe."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run. ``reduce`` sums a float64 tensor over all of them; every process must call at the same time."""

    main: bool = True
    count: int = 1
    reduce: Reduce | None = None


@dataclass
class _Sums:
    """What has been counted since the last record, by this process."""

    numbers: dict[str, float]
    task_examples: list[float]
    task_tokens: list[float]
    losses: list[Tensor | float] = field(default_factory=list)


class Tracker:
    """Counts, averages, shows and logs a run. Use as a context manager: how it is left is how the run ended.

    Args:
        recipe: of the run.
        tasks: names of all tasks, in the same order in every process.
        model: for the arithmetic of a step; MFU is left out where not every weight is trained.
        device: where the model is.
        first_step: steps done before; later lines of ``metrics.jsonl`` are forgotten.
        state: :meth:`state_dict` of the checkpoint that is resumed.
        processes: this process among those of the run; by default the only one.

    Raises:
        InputError: wandb is wanted and not there.
    """

    def __init__(
        self,
        recipe: Watched,
        tasks: Sequence[str],
        model: nn.Module,
        device: torch.device,
        first_step: int = 0,
        state: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._tasks, self._index = list(tasks), {task: number for number, task in enumerate(tasks)}
        self._recipe, self._device, self._processes = recipe, device, processes or Processes()
        self._run_dir, self._steps = recipe.run_dir, recipe.training.steps
        self._step = self._first = first_step
        self._closed = False
        main, settings, state = self._processes.main, recipe.tracking, state or {}
        all_trained = all(parameter.requires_grad for parameter in model.parameters())
        self._config: Any = model.config if all_trained else None
        self._display = make_display(settings.progress if main else "none", self._steps, first_step)
        self._file = MetricsFile(self._run_dir, first_step) if main else None
        self._wandb = self._start_wandb(state.get("wandb_id")) if main and settings.wandb else None
        self._peak = self._device_peak() if main and self._config is not None else 0.0
        if self._peak:
            self._display.say(f"matrix-product peak {short(self._peak)}FLOP/s, {'given' if settings.peak_tflops else 'measured'}")
        self.task_losses = TaskLosses(len(self._tasks), device)
        self._sums = self._no_sums()
        self._totals = {"tokens": 0.0, "examples": 0.0, "elapsed": 0.0}
        if main and state:
            self._restore(state)
        self._started = self._since = perf_counter()
        self._waited = self._paused = 0.0
        self._write_status("running")

    def _start_wandb(self, run_id: str | None) -> WandbSink:
        recipe = self._recipe
        sink = WandbSink(
            self._run_dir, recipe.tracking.project, recipe.name, recipe.model_dump(mode="json"), run_id, self._display.say
        )
        self._display.say(f"wandb: {sink.mode}, run {sink.run_id}")
        return sink

    def _device_peak(self) -> float:
        """FLOP/s of one device, given or measured."""
        given = self._recipe.tracking.peak_tflops
        dtype = torch.bfloat16 if self._recipe.training.precision == "bfloat16" else torch.float32
        return given * 1e12 if given else measure_matmul_peak(self._device, dtype)

    def _utilisation(self, speed: float) -> float:
        """MFU of a device that does ``speed`` FLOP/s. One near or above 1 says that others used the device while the peak was
        measured, so it is measured again."""
        if speed > _CREDIBLE * self._peak and not self._recipe.tracking.peak_tflops:
            self._peak = max(self._peak, self._device_peak())
            self.say(f"matrix-product peak measured again: {short(self._peak)}FLOP/s")
        return speed / self._peak

    def _no_sums(self) -> _Sums:
        zeros = [0.0] * len(self._tasks)
        return _Sums(dict.fromkeys((*_SAVED, *_TIMED), 0.0), list(zeros), list(zeros))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around taking the next batch: the time inside is what the device waited for data."""
        start = perf_counter()
        try:
            yield
        finally:
            self._waited += perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around validation and checkpoints: the time inside counts as no step's."""
        start = perf_counter()
        try:
            yield
        finally:
            self._paused += perf_counter() - start

    def step(
        self,
        loss: Tensor | float,
        tokens: int,
        slots: int,
        examples: Mapping[str, int],
        task_tokens: Mapping[str, int] | None = None,
        work: Work | float | None = None,
    ) -> None:
        """Count one optimiser step of this process. A tensor is not read before the next record: the device need not wait.

        Args:
            loss: this process's share of the step's loss; the shares of all processes add up to it.
            tokens: non-padding tokens of both sides.
            slots: the same with padding.
            examples: by task.
            task_tokens: non-padding tokens of both sides by task.
            work: the step's arithmetic, of a T5 or in FLOPs, for MFU.
        """
        sums, numbers = self._sums, self._sums.numbers
        sums.losses.append(loss.detach().clone() if isinstance(loss, Tensor) else loss)
        one = int(self._processes.main)  # all processes take a step together
        for key, value in {"tokens": tokens, "slots": slots, "steps": one, "timed_tokens": tokens, "timed_steps": one}.items():
            numbers[key] += value
        if work is not None and self._config is not None:
            numbers["timed_flops"] += training_flops(self._config, work) if isinstance(work, Work) else work
        for task, number in examples.items():
            sums.task_examples[self._index[task]] += number
        for task, number in (task_tokens or {}).items():
            sums.task_tokens[self._index[task]] += number

    def log(
        self, step: int, gradient_norm: float, learning_rate: float, parts: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Write and show the averages since the last record, after ``step`` optimiser steps; called in every process.

        Args:
            step: steps done.
            gradient_norm: of the last step.
            learning_rate: of the last step.
            parts: what the last step's loss was made of.

        Returns:
            The record; empty where this is not the main process.
        """
        sums = self._gather()
        self._step = step
        if not self._processes.main:
            return self._begin({})
        time = perf_counter()
        seconds = max(time - self._since - self._paused, 1e-9)
        numbers = sums["numbers"]
        self._totals["tokens"] += numbers["tokens"]
        self._totals["examples"] += sum(sums["task_examples"])
        record: dict[str, Any] = {
            "step": step,
            "loss": numbers["loss"] / max(1.0, numbers["steps"]),
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "tokens_per_second": numbers["timed_tokens"] / seconds,
            "padding": 1 - numbers["tokens"] / max(1.0, numbers["slots"]),
            "seconds": seconds,
            "step_seconds": seconds / max(1.0, numbers["timed_steps"]),
            "data_wait": min(1.0, self._waited / seconds),
            "tokens_seen": int(self._totals["tokens"]),
            "elapsed": self._elapsed(time),
            **peak_memory(self._device),
            "time": now(),
        }
        if numbers["timed_flops"]:
            record["flops_per_second"] = numbers["timed_flops"] / seconds
            record["mfu"] = self._utilisation(record["flops_per_second"] / self._processes.count)
        record |= self._by_task(sums)
        if parts:
            record["loss_parts"] = {name: float(f"{value:.6g}") for name, value in parts.items()}
        left = (time - self._started) / max(1, step - self._first) * (self._steps - step)
        self.record(record)
        self._display.show(record, left)
        self._write_status("running")
        return self._begin(record)

    def _begin(self, record: dict[str, Any]) -> dict[str, Any]:
        """Start the next interval."""
        self._sums = self._no_sums()
        self.task_losses.sums.zero_()
        self._waited = self._paused = 0.0
        self._since = perf_counter()
        return record

    def _by_task(self, sums: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Losses, tokens and examples of the tasks that had any, to six digits: 50 tasks make long lines."""
        losses = zip(self._tasks, *sums["task_losses"], strict=True)
        found: dict[str, dict[str, float]] = {
            "task_loss": {task: float(f"{total / number:.6g}") for task, total, number in losses if number},
            "task_tokens": {task: int(number) for task, number in zip(self._tasks, sums["task_tokens"], strict=True) if number},
            "task_examples": {task: int(number) for task, number in zip(self._tasks, sums["task_examples"], strict=True) if number},
        }
        return {key: value for key, value in found.items() if value}

    def _gather(self) -> dict[str, Any]:
        """The sums since the last record, over all processes."""
        sums, tasks = self._sums, len(self._tasks)
        for loss in sums.losses:
            sums.numbers["loss"] += float(loss)
        sums.losses.clear()
        keys = list(sums.numbers)
        numbers, by_task = list(sums.numbers.values()), self.task_losses.sums.flatten().tolist()
        vector = [*numbers, *sums.task_examples, *sums.task_tokens, *by_task]
        if self._processes.reduce is not None:
            vector = self._processes.reduce(torch.tensor(vector, dtype=torch.float64, device=self._device)).tolist()
        values, rest = vector[: len(keys)], vector[len(keys) :]
        return {
            "numbers": dict(zip(keys, values, strict=True)),
            "task_examples": rest[:tasks],
            "task_tokens": rest[tasks : 2 * tasks],
            "task_losses": [rest[2 * tasks : 3 * tasks], rest[3 * tasks :]],
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, as JSON: the interval that is not yet full, and the totals. Called in every process."""
        sums = self._gather()
        sums["numbers"] = {key: sums["numbers"][key] for key in _SAVED}
        totals = {**self._totals, "elapsed": self._elapsed(perf_counter())}
        return {"tasks": self._tasks, **sums, "totals": totals, "wandb_id": self._wandb.run_id if self._wandb else None}

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of a checkpoint; the main process takes those of all."""
        self._totals |= state.get("totals", {})
        if state.get("tasks") != self._tasks:
            return
        self._sums.numbers |= state["numbers"]
        self._sums.task_examples, self._sums.task_tokens = list(state["task_examples"]), list(state["task_tokens"])
        self.task_losses.sums += torch.tensor(state["task_losses"], dtype=torch.float64).to(self._device)

    def _elapsed(self, time: float) -> float:
        return self._totals["elapsed"] + time - self._started

    def record(self, record: dict[str, Any]) -> None:
        """Write a record of one's own, for instance a validation's; it must hold the ``step``."""
        if self._file is not None:
            self._file.log(record)
        if self._wandb is not None:
            self._wandb.log(record)

    def say(self, text: str) -> None:
        """Show a line of text; the main process alone speaks, unless it is a warning."""
        self._display.say(text)

    def close(self, outcome: Outcome) -> None:
        """End: ``finished``, ``interrupted`` (it can go on) or ``failed``. Only the first call counts."""
        if self._closed:
            return
        self._closed = True
        self._display.close()
        if self._wandb is not None:
            self._wandb.close(outcome == "failed")
        self._write_status(outcome)

    def _write_status(self, outcome: Outcome) -> None:
        if self._processes.main:
            more = {"wandb_id": self._wandb.run_id} if self._wandb else {}
            write_status(self._run_dir, outcome, self._step, self._steps, more)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stopped = kind is not None and not issubclass(kind, Exception)  # Ctrl-C, SystemExit
        self.close("interrupted" if stopped else "failed" if kind else "finished")


def peak_memory(device: torch.device) -> dict[str, int]:
    """Highest memory use of this process so far, in MiB: resident on the host, and allocated on a CUDA device."""
    memory = {"memory_mib": _resident_peak() // 2**20}
    if device.type == "cuda":
        memory["cuda_memory_mib"] = torch.cuda.max_memory_allocated(device) // 2**20
        memory["cuda_reserved_mib"] = torch.cuda.max_memory_reserved(device) // 2**20
    return memory


def _resident_peak() -> int:
    """Bytes. The kernel's own high-water mark where there is one: ``getrusage`` hands a large parent's down to its children."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
