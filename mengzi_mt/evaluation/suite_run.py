"""One model through the tasks of a suite: ``results.json`` and ``report.html`` in a result folder."""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from mengzi_mt import __version__
from mengzi_mt.evaluation.entries import suite_score
from mengzi_mt.evaluation.loading import load_scorers
from mengzi_mt.evaluation.processes import Alone, Processes, SharedGenerator, SharedScorer
from mengzi_mt.evaluation.provenance import contamination_of, published_of, weights_hash
from mengzi_mt.evaluation.report import write_report
from mengzi_mt.evaluation.results import RESULTS_FILE, RESULTS_SCHEMA
from mengzi_mt.evaluation.runner import Options, Watch, evaluate_task
from mengzi_mt.evaluation.suites import Suite
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.tasks.task import Task


@dataclass(frozen=True)
class SuiteJob:
    """What a model is evaluated on, and how.

    Attributes:
        suite: whose metrics and splits hold.
        tasks: of the suite, all or some.
        split: in place of the suite's own, if any.
        source: of the rows.
        options: templates and limits.
        settings: of the scorers: ``precision``, ``max_input``, ``convention``.
        batch_size: examples of a forward pass at most.
        fresh: evaluate finished pairs of task and template again.
    """

    suite: Suite
    tasks: list[Task]
    split: str | None
    source: DataSource
    options: Options
    settings: dict[str, Any]
    batch_size: int
    fresh: bool = False

    def split_of(self, task: Task) -> str:
        """The split of a task."""
        return self.split or self.suite.split_of(task.name)


def evaluate_suite(
    name: str,
    place: Path,
    manifest: Mapping[str, Any],
    out: Path,
    job: SuiteJob,
    watch: Watch,
    *,
    device: torch.device | str = "cpu",
    processes: Processes | None = None,
) -> dict[str, Any]:
    """What the main process writes to the result folder and returns; {} in the others.

    Args:
        name: of the model, for a reader.
        place: its folder, or its hub name.
        manifest: of its checkpoint, {} where it has none.
        out: the result folder.
        job: what it is evaluated on.
        watch: hears of progress.
        device: to use.
        processes: that share the rows.

    Raises:
        InputError: no model there, or no rows.
    """
    began = time.perf_counter()
    processes = processes or Alone()
    loaded = load_scorers(str(place), device=device, batch_size=job.batch_size, **job.settings)
    scorer, generator = SharedScorer(loaded.scorer, processes), SharedGenerator(loaded.generator, processes)
    described = describe_model(name, place, loaded.parameters, manifest)
    described |= {"architecture": loaded.kind, "scored_as": loaded.way}
    settings = {**job.settings, "precision": loaded.precision}
    run = None if job.fresh else {"model": described["hash"] or described["name"], **settings}
    entries = [
        evaluate_task(
            task,
            job.source,
            replace(job.options, split=job.split_of(task), metric=job.suite.metric(task.name), run=run),
            scorer,
            generator,
            out,
            watch,
            processes,
            loaded.exact,
        )
        for task in job.tasks
    ]
    if not processes.main:
        return {}
    options = job.options
    results = {
        "schema": RESULTS_SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "suite": job.suite.name,
        "split": options.split,
        "data": {"source": job.source.kind, "note": data_note(job.source)},
        "model": described,
        "settings": {
            "normalisation": options.normalisation, "limit": options.limit, "seed": options.seed,
            "max_templates": options.max_templates, **settings,
            "convention": loaded.scorer.convention.description, "processes": processes.count,
        },
        "published": published_of(job.suite, options.split),
        "tasks": entries,
        "suite_score": suite_score(entries),
        "suite_tasks": len(job.suite.tasks),
        "versions": versions(),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    (out / RESULTS_FILE).write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_report(results, out / "report.html")
    return results


def data_note(source: DataSource) -> str | None:
    """What a reader must know of the rows."""
    if source.kind == "sample":
        return (
            "These are bundled samples written for this project, not the benchmarks: no score here compares with a published one."
        )
    return f"data map: {source.data_map.name}" if source.data_map else None


def describe_model(name: str, place: Path, parameters: int, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The model's provenance for results: hash of its weights, and what its manifest says it was trained on."""
    recipe = manifest.get("recipe", {})
    return {
        "name": name,
        "hash": weights_hash(place),
        "parameters": parameters,
        "shape": recipe.get("model", {}).get("shape"),
        "recipe": recipe.get("name"),
        "steps": manifest.get("step"),
        "tokens_seen": manifest.get("counters", {}).get("tokens"),
        "zero_shot_tasks_trained_on": manifest.get("zero_shot_tasks_trained_on", []),
        "mixture": manifest.get("mixture", {}),
        "data_source": manifest.get("data_source"),
        "contamination": contamination_of(manifest),
    }


def versions() -> dict[str, str]:
    """Of this package, Python, torch and transformers."""
    return {
        "mengzi_mt": __version__, "python": platform.python_version(),
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
