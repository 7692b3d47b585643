"""Data maps: which files stand in for which split where a data root holds only part of the official files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.resources import resource_dir
from mengzi_mt.yaml_io import load_mapping


@dataclass(frozen=True)
class MappedSplit:
    """Files that serve as a split, and the official splits that they really are."""

    files: tuple[str, ...]
    official: tuple[str, ...]


@dataclass(frozen=True)
class DataMap:
    """Per task, per split: what stands in."""

    name: str
    tasks: dict[str, dict[str, MappedSplit]]

    def splits(self, task: str) -> dict[str, list[str]] | None:
        """Files per split of one task, or None where the map says nothing about it (official names hold then)."""
        mapped = self.tasks.get(task)
        return None if mapped is None else {name: list(split.files) for name, split in mapped.items()}

    def official_split(self, task: str, split: str) -> list[str]:
        """The official splits whose files serve as ``split``."""
        return list(self.tasks[task][split].official)


def load_data_map(path: Path) -> DataMap:
    """Read one data map; a bare name is looked for among the shipped ``recipes/data-maps/``.

    Raises:
        InputError: naming file and key.
    """
    shipped = resource_dir("recipes") / "data-maps" / f"{path.name.removesuffix('.yaml')}.yaml"
    if not path.is_file() and shipped.is_file():
        path = shipped
    raw = load_mapping(path)
    tasks: dict[str, dict[str, MappedSplit]] = {}
    for task, splits in _mapping(path, "tasks", raw.get("tasks") or {}).items():
        splits = _mapping(path, f"tasks.{task}", splits)
        tasks[task] = {name: _mapped_split(path, f"tasks.{task}.{name}", value) for name, value in splits.items()}
    unknown = set(raw) - {"description", "tasks"}
    if unknown:
        raise InputError(f"Unknown key {sorted(unknown)[0]!r}", where=str(path), fix="a data map has `description` and `tasks`")
    return DataMap(path.stem, tasks)


def _mapping(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("Here must stand a mapping", where=f"{path}, key {key}", fix="write `name: …` lines under it")
    return value


def _mapped_split(path: Path, key: str, value: Any) -> MappedSplit:
    files = _mapping(path, key, value).get("files")
    if not isinstance(files, list) or not files or not all(isinstance(name, str) for name in files):
        raise InputError("A mapped split needs a list of files", where=f"{path}, key {key}", fix="write `files: [name, …]`")
    unknown = sorted(set(value) - {"files", "official_split"})
    if unknown:
        raise InputError(
            f"Unknown key {unknown[0]!r}", where=f"{path}, key {key}", fix=nearest(unknown[0], ["files", "official_split"])
        )
    official = value.get("official_split", key.rsplit(".", 1)[-1])
    return MappedSplit(tuple(files), tuple(official if isinstance(official, list) else [official]))
