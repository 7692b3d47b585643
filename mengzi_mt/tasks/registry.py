"""The registry: which tasks there are. Reads folders when asked, nothing at import time."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.resources import registry_dirs, registry_entry
from mengzi_mt.tasks.task import Task, load_task


def task_names(root: Path | None = None) -> list[str]:
    """Names of the tasks under ``root``, sorted; by default the shipped ones and those that ``MENGZI_MT_REGISTRY`` adds."""
    if root is not None and not root.is_dir():
        raise InputError("The tasks folder does not exist", where=str(root), fix="give an existing folder")
    folders = [root] if root else registry_dirs("tasks")
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/task.yaml")})


@lru_cache(maxsize=512)
def _cached(path: Path, _stamp: int) -> Task:
    return load_task(path)


def get_task(name: str, root: Path | None = None) -> Task:
    """One task by name.

    Raises:
        InputError: an unknown name (with the nearest known ones) or an invalid file.
    """
    path = (root / name if root else registry_entry("tasks", name)) / "task.yaml"
    if not path.is_file():
        raise InputError(f"There is no task {name!r}", where=str(path.parent.parent), fix=nearest(name, task_names(root)))
    return _cached(path, path.stat().st_mtime_ns)


def all_tasks(root: Path | None = None) -> list[Task]:
    """Every task under ``root``, by name."""
    return [get_task(name, root) for name in task_names(root)]
