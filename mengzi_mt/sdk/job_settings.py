"""What an output of ``mengzi-mt infer`` was made with, in a file beside it: an interrupted one goes on with nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError

SUFFIX = ".settings.json"
_NAMES_ONLY = "model"
"""The key that may change where the weights are the same: a folder that was moved."""


def settings_file(output: Path) -> Path:
    """Where the settings of an output stand: ``labelled.csv.settings.json``."""
    return output.with_name(output.name + SUFFIX)


def write_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Put them beside the output, whole or not at all."""
    place = settings_file(output)
    beside = place.with_name(f".{place.name}.unfinished")
    beside.write_text(json.dumps(settings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    beside.replace(place)


def check_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Whether the rows of an output were answered with these settings; nothing is said of one without its settings file.

    Raises:
        InputError: they were not, or the file does not read.
    """
    place = settings_file(output)
    if not place.is_file():
        return
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise InputError(
            f"The settings of the output do not read: {error}", where=str(place), fix="remove that file, or write anew (--fresh)"
        ) from error
    now = json.loads(json.dumps(settings))
    moved = before.get("weights") is not None and before.get("weights") == now.get("weights")
    others = [key for key in {**before, **now} if before.get(key) != now.get(key) and not (moved and key == _NAMES_ONLY)]
    if others:
        told = "; ".join(f"{key} {_shown(before.get(key))}, now {_shown(now.get(key))}" for key in others)
        raise InputError(
            f"The rows in the output were answered with other settings: {told}", where=str(place),
            fix="give the same settings, name another output, or write it anew (--fresh)",
        )  # fmt: skip


def _shown(value: Any) -> str:
    return "by default" if value is None else json.dumps(value, ensure_ascii=False)
