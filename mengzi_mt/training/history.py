"""Run folders read back: what ``mengzi-mt runs`` lists, shows and draws. Imports no torch, so that it answers at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.page import finite
from mengzi_mt.training.run_status import METRICS, Outcome, outcome_now, read_metrics, read_status

_MANIFEST = "mengzi_mt.json"


@dataclass(frozen=True)
class Best:
    """The best validation of a run."""

    score: str
    value: float
    step: int


@dataclass(frozen=True)
class RunHistory:
    """One run folder: records of ``metrics.jsonl``, the recipe, the newest checkpoint's manifest, ``status.json``.

    Runs of earlier versions lack the status and most of a record's keys; what they lack is None here.
    """

    folder: Path
    name: str
    records: tuple[Mapping[str, Any], ...]
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    status: Mapping[str, Any]
    complete: bool
    """Whether the final checkpoint is there."""

    @cached_property
    def training(self) -> tuple[Mapping[str, Any], ...]:
        """The records of logging intervals."""
        return tuple(record for record in self.records if "loss" in record)

    @cached_property
    def validations(self) -> tuple[Mapping[str, Any], ...]:
        """The records of validations."""
        return tuple(record for record in self.records if "validation_loss" in record or "scores" in record)

    @property
    def step(self) -> int:
        """Optimiser steps done, as far as anything in the folder says."""
        return max([record["step"] for record in self.records] + [_whole(self.manifest, "step"), _whole(self.status, "step")])

    @property
    def steps(self) -> int | None:
        """Optimiser steps that the recipe wants."""
        return _whole(_section(self.recipe, "training"), "steps") or _whole(self.status, "steps") or None

    @property
    def loss(self) -> float | None:
        """The last training loss."""
        return finite(self.training[-1]["loss"]) if self.training else None

    @property
    def best(self) -> Best | None:
        """The best validation by the recipe's ``stopping.score``: by default the least mean validation loss."""
        settings = _section(self.recipe, "stopping")
        score, mode = settings.get("score", "validation_loss"), settings.get("mode", "min")
        values = [
            (value, int(record["step"])) for record in self.validations if (value := finite(numbers(record).get(score))) is not None
        ]
        if not values:
            return None
        value, step = min(values, key=lambda pair: (pair[0] if mode == "min" else -pair[0], pair[1]))
        return Best(score, value, step)

    @property
    def tokens(self) -> int | None:
        """Non-padding tokens trained on."""
        if not self.training:
            return _whole(_section(self.manifest, "counters"), "tokens") or None
        seen = self.training[-1].get("tokens_seen")
        if isinstance(seen, int):
            return seen
        return round(sum((finite(r.get("tokens_per_second")) or 0.0) * (finite(r.get("seconds")) or 0.0) for r in self.training))

    @property
    def seconds(self) -> float | None:
        """Time spent, over all resumptions."""
        if not self.training:
            return None
        elapsed = finite(self.training[-1].get("elapsed"))
        return elapsed if elapsed is not None else sum(finite(record.get("seconds")) or 0.0 for record in self.training)

    @property
    def outcome(self) -> Outcome:
        """How the run stands; a folder without status is finished if its final checkpoint is whole."""
        stated = outcome_now(dict(self.status)) if self.status else "interrupted"
        return "finished" if stated != "running" and self.complete else stated

    @property
    def task_examples(self) -> dict[str, int]:
        """Examples of each task that the newest checkpoint was trained on, over all templates."""
        counts = _section(self.manifest, "examples")
        return {task: sum(templates.values()) for task, templates in counts.items() if isinstance(templates, Mapping)}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Every task that anything in the folder names."""
        names = {name for record in self.records for key in ("task_loss", "validation_losses") for name in _section(record, key)}
        return tuple(sorted(names | set(_section(self.manifest, "data")) | set(self.task_examples)))

    def summary(self) -> dict[str, Any]:
        """One line of ``runs list``, as JSON."""
        best = self.best
        return {
            "name": self.name,
            "folder": str(self.folder),
            "state": self.outcome,
            "step": self.step,
            "steps": self.steps,
            "loss": self.loss,
            "best": None if best is None else {"score": best.score, "value": best.value, "step": best.step},
            "tokens": self.tokens,
            "seconds": self.seconds,
        }


def find_runs(root: Path) -> list[RunHistory]:
    """The runs of a folder: itself, and those at most two levels below; by name.

    Raises:
        InputError: the folder does not exist.
    """
    if not root.is_dir():
        raise InputError("There is no such folder of runs", where=str(root), fix="give the folder that holds run folders")
    files = [path for pattern in (METRICS, f"*/{METRICS}", f"*/*/{METRICS}") for path in root.glob(pattern)]
    return [read_run(path.parent) for path in sorted(files)]


def open_run(name: str, root: Path) -> RunHistory:
    """A run by its folder, or by its name below ``root``.

    Raises:
        InputError: there is none; the message names those nearest.
    """
    for folder in (Path(name), root / name):
        if (folder / METRICS).is_file():
            return read_run(folder)
    known = [str(path.parent.relative_to(root)) for path in root.glob(f"*/{METRICS}")] if root.is_dir() else []
    raise InputError(f"There is no run {name!r}: no {METRICS} in it", where=str(root), fix=nearest(name, known))


def read_run(folder: Path) -> RunHistory:
    """A run folder as it is now; a run that goes on may be read at any time.

    Raises:
        InputError: it cannot be read.
    """
    try:
        records = read_metrics(folder / METRICS)
    except OSError as error:
        raise InputError(f"The run cannot be read: {error.strerror}", where=str(folder / METRICS)) from error
    recipe = _read_yaml(folder / "recipe.yaml")
    manifests = [_read_json(path) for path in (*folder.glob(f"step-*/{_MANIFEST}"), folder / "final" / _MANIFEST)]
    manifest = max(manifests, key=lambda item: _whole(item, "step"))
    wanted = _whole(_section(recipe, "training"), "steps")
    final = manifests[-1]
    return RunHistory(
        folder=folder,
        name=folder.name or folder.resolve().name,
        records=tuple(records),
        recipe=recipe,
        manifest=manifest,
        status=read_status(folder),
        complete=bool(final) and _whole(final, "step") >= wanted,
    )


def numbers(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of a record by dotted names: ``validation_losses.lcqmc``."""
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{key}.")
        elif (number := finite(value)) is not None:
            found[f"{prefix}{key}"] = number
    return found


def curve(records: tuple[Mapping[str, Any], ...], key: str) -> list[tuple[int, float]]:
    """(step, value) of one key, dotted or not, where it is a finite number."""
    path = key.split(".", 1)
    points = []
    for record in records:
        value = record.get(path[0])
        if len(path) == 2:
            value = value.get(path[1]) if isinstance(value, Mapping) else None
        number = finite(value)
        if number is not None:
            points.append((int(record["step"]), number))
    return points


def _section(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _whole(value: Mapping[str, Any], key: str) -> int:
    found = value.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
