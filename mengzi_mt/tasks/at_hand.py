"""Every file of a task that a data root holds, each once: what the checks read."""

from __future__ import annotations

from pathlib import Path

from mengzi_mt.errors import InputError
from mengzi_mt.resources import resource_dir
from mengzi_mt.tasks.data_map import DataMap, MappedSplit, load_data_map
from mengzi_mt.tasks.rows import DataSource, matching_files
from mengzi_mt.tasks.task import Task


def shipped_data_maps() -> list[DataMap]:
    """The data maps under ``recipes/data-maps``."""
    return [load_data_map(path) for path in sorted((resource_dir("recipes") / "data-maps").glob("*.yaml"))]


def source_at_hand(task: Task, root: Path) -> tuple[DataSource, list[str]]:
    """A source whose splits hold every file of the task under ``root``, and the names of those splits.

    A file is known by its official name or by a shipped data map, and belongs to the first split that names it. No
    validation split is cut off: these splits are for reading everything, not for training.

    Raises:
        InputError: there is no such root.
    """
    if not root.is_dir():
        raise InputError("The data folder does not exist", where=str(root), fix="check --data-dir or MENGZI_MT_DATA")
    folder = root / task.source.path
    named = [(split, names) for split, names in task.source.splits.items()]
    for data_map in shipped_data_maps():
        named += [(split, tuple(names)) for split, names in (data_map.splits(task.name) or {}).items()]
    seen: set[str] = set()
    splits: dict[str, MappedSplit] = {}
    for split, names in named:
        files = [file for name in names for file in matching_files(folder, name) if file not in seen]
        if files:
            seen.update(files)
            before = splits.get(f"{split} files")
            splits[f"{split} files"] = MappedSplit((*(before.files if before else ()), *files), (split,))
    return DataSource("files", root, DataMap("at hand", {task.name: splits})), list(splits)
