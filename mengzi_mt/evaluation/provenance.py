"""What results must carry beside scores: the weights' hash, published results of the same rows, what was kept out of training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mengzi_mt.evaluation.suites import Suite
from mengzi_mt.models.t5 import WEIGHTS_FILE
from mengzi_mt.runtimes.export_folder import is_export, read_export


def weights_hash(place: Path) -> str | None:
    """SHA-256 (first 16 hex digits) of the weights file, an export's own hash, or None for a hub name."""
    if is_export(place):
        return read_export(place).hash
    path = place / WEIGHTS_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def published_of(suite: Suite, split: str) -> dict[str, Any]:
    """The key ``published`` of ``results.json``: results of others on exactly this split, and how many are of other splits."""
    comparable = suite.comparable(split)
    others = Counter(published.split for published in suite.published if published.split != split)
    return {
        "split": split,
        "comparable": [published.model_dump(mode="json") for published in comparable],
        "other_splits": dict(sorted(others.items())),
    }


def contamination_of(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The key ``model.contamination`` of ``results.json``, from a checkpoint's manifest: training rows that were left out
    because they overlap evaluation texts (``data.exclude`` of its recipe).

    Returns:
        ``views`` (file name to the first 16 hex digits of its SHA-256), ``tasks`` (training task to rows left out, those with
        any), ``listed`` and ``left_out`` (rows in all) and ``tasks_looked_at``; None where nothing is known.
    """
    reports = {
        task: entry["excluded"]
        for task, entry in (manifest.get("data") or {}).items()
        if isinstance(entry, Mapping) and isinstance(entry.get("excluded"), Mapping)
    }
    if not reports:
        return None
    left_out = {task: sum((report.get("left_out") or {}).values()) for task, report in reports.items()}
    return {
        "views": {str(report.get("view")): str(report.get("view_sha256")) for report in reports.values()},
        "tasks_looked_at": len(reports),
        "listed": sum(report.get("listed") or 0 for report in reports.values()),
        "left_out": sum(left_out.values()),
        "tasks": {task: rows for task, rows in sorted(left_out.items(), key=lambda item: -item[1]) if rows},
    }
