"""What listings show of tasks, without reading more files than have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mengzi_mt.resources import registry_dirs
from mengzi_mt.summaries import summaries


def task_summaries() -> list[dict[str, Any]]:
    """Name, titles, category, role, licence, number of labels and version of every task, by name."""
    files: dict[str, Path] = {}
    for folder in registry_dirs("tasks"):
        for path in folder.glob("*/task.yaml"):
            files.setdefault(path.parent.name, path)
    return summaries("tasks", [files[name] for name in sorted(files)], _summary)


def _summary(path: Path) -> dict[str, Any]:
    from mengzi_mt.tasks.task import load_task

    task = load_task(path)
    return {
        "name": task.name,
        "title": task.title.model_dump(),
        "category": task.category,
        "role": task.role,
        "labels": len(task.labels or {}),
        "licence": task.licence.name,
        "research_only": task.licence.research_only,
        "version": task.version,
    }
