"""What a pipeline's last stage does: teacher and forms are scored on suites, timed, and their memory taken.

Predictions are kept in ``scores/FORM/SUITE`` of the pipeline's folder, where an interrupted or a changed pipeline takes them from.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mengzi_mt.compression.export import versions
from mengzi_mt.compression.measuring import load_way, measure_speed, timed_examples
from mengzi_mt.compression.measuring_memory import peak_memory
from mengzi_mt.compression.pipeline_recipe import PipelineRecipe, SuiteSettings
from mengzi_mt.compression.pipeline_results import PIPELINE_SCHEMA, check_results
from mengzi_mt.compression.pipeline_stages import TEACHER, Stage
from mengzi_mt.evaluation.comparison import compare_runs
from mengzi_mt.evaluation.results import Run
from mengzi_mt.evaluation.runner import Options, Quiet
from mengzi_mt.evaluation.suite_run import SuiteJob, data_note, evaluate_suite
from mengzi_mt.evaluation.suites import Suite, load_suite
from mengzi_mt.models.t5 import WEIGHTS_FILE, load_model, parameter_count
from mengzi_mt.resources import resolve
from mengzi_mt.runtimes.export_folder import is_export, read_export
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.checkpoint import read_manifest
from mengzi_mt.training.memory import keep_freed_memory

PLAIN = "transformers float32"
ROUNDING = 1e-9
"""Ends of a difference's interval this near to 0 are 0."""
SAID_ELSEWHERE = ("different precision", "bundled samples")
"""Warnings of a comparison that a form's precision and the report's banner say."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Form:
    """What is measured: ``place`` is a checkpoint or an export, run by transformers alone where ``plain``."""

    name: str
    of: str
    stage: str | None
    place: Path
    plain: bool = False


@dataclass(frozen=True)
class ChosenSuite:
    """A suite of the recipe with its tasks that are evaluated."""

    suite: Suite
    settings: SuiteSettings

    @property
    def tasks(self) -> list[str]:
        """Their names."""
        return list(self.settings.tasks or self.suite.tasks)

    def job(self, source: DataSource, max_input: int) -> SuiteJob:
        """As evaluation takes it."""
        given, suite = self.settings, self.suite
        options = Options(
            split=suite.split, normalisation=suite.normalisation, max_templates=given.max_templates, limit=given.limit,
            seed=given.seed if given.limit else None,
        )  # fmt: skip
        settings = {"precision": "float32", "max_input": max_input, "convention": "mengzi"}
        return SuiteJob(suite, [get_task(name) for name in self.tasks], None, source, options, settings, 64)


def chosen_suites(recipe: PipelineRecipe) -> list[ChosenSuite]:
    """The recipe's suites.

    Raises:
        InputError: an unknown suite or task.
    """
    return [ChosenSuite(load_suite(one.suite), one) for one in recipe.measure.suites]


def check_rows(suites: Sequence[ChosenSuite], source: DataSource) -> None:
    """See that every task has rows, before hours are spent.

    Raises:
        InputError: one has none.
    """
    for chosen in suites:
        for name in chosen.tasks:
            load_rows(get_task(name), chosen.suite.split_of(name), source, 1)


def forms_of(recipe: PipelineRecipe, stages: Sequence[Stage]) -> list[Form]:
    """Transformers with the teacher, the teacher, its forms, and what the stages made, in order."""
    teacher = Path(resolve(recipe.teacher))
    made = [stage for stage in stages if stage.kind != "measure"]
    compressed = any(stage.kind != "export" for stage in made)
    own = [
        Form(stage.name, TEACHER if _of_teacher(stage) else "compressed", stage.name, stage.result)
        for stage in sorted(made, key=lambda stage: not _of_teacher(stage) if compressed else False)
    ]
    return [Form(PLAIN, TEACHER, None, teacher, plain=True), Form(TEACHER, TEACHER, None, teacher), *own]


LABELS = {"distil": "student", "prune": "pruned", "fine-tune": "fine-tuned with rounding", "quantise": "torch int8"}


def label_of(form: Form) -> str:
    """A form's name in words."""
    if form.stage is None:
        return form.name
    whose, _, runtime = form.name.partition("-") if form.stage not in LABELS else ("", "", "")
    words = LABELS.get(form.stage) or runtime.replace("-", " ")
    return f"teacher, {words}" if whose == TEACHER else words


def _of_teacher(stage: Stage) -> bool:
    return stage.kind == "export" and stage.source == TEACHER


def measure(recipe: PipelineRecipe, stages: Sequence[Stage], source: DataSource, say: Say) -> dict[str, Any]:
    """All that is measured, as ``results.json`` but for the stages' costs.

    Raises:
        InputError: rows or labels are missing.
        RunError: a form does not run.
    """
    torch.set_num_threads(recipe.measure.threads)
    keep_freed_memory()
    forms, suites = forms_of(recipe, stages), chosen_suites(recipe)
    comparisons = [_scores(recipe, forms, chosen, source, say) for chosen in suites]
    settings = recipe.measure
    tasks = list(dict.fromkeys(name for chosen in suites for name in chosen.tasks))
    examples = timed_examples([chosen.suite for chosen in suites], tasks, source, settings.rounds * settings.rows)
    memory = {}
    for form in forms:
        say(f"memory: {form.name}")
        memory[form.name] = peak_memory(str(form.place), form.plain, examples[: settings.batch], settings)
    ways = {form.name: load_way(str(form.place), form.plain, settings) for form in forms}
    before = _load()
    speed = measure_speed(ways, PLAIN, examples, settings, say)
    after = _load()
    described = [_described(form, recipe) for form in forms]
    floats = described[0]["bytes"]
    entries = [
        {
            **one, "smaller": floats / one["bytes"], "memory": memory[form.name], **speed[form.name],
            "suites": [_suite_score(comparison, TEACHER if form.plain else form.name) for comparison in comparisons],
        }
        for form, one in zip(forms, described, strict=True)
    ]  # fmt: skip
    for entry, known in zip(entries, frontiers(entries), strict=True):
        entry["frontier"] = known
    return {
        "schema": PIPELINE_SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "name": recipe.name, "description": recipe.description.strip(), "teacher": recipe.teacher,
        "data": {"source": source.kind, "note": data_note(source)},
        "machine": machine(settings.threads, before, after), "versions": versions(),
        "settings": settings.model_dump(mode="json"),
        "suites": [_suite_info(chosen, comparison) for chosen, comparison in zip(suites, comparisons, strict=True)],
        "forms": entries,
    }  # fmt: skip


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Check and write ``results.json``.

    Raises:
        InputError: they do not follow the schema.
    """
    check_results(results, str(path))
    path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _scores(recipe: PipelineRecipe, forms: Sequence[Form], chosen: ChosenSuite, source: DataSource, say: Say) -> dict[str, Any]:
    """The comparison of all forms but transformers alone, which runs the teacher's weights, with the teacher."""
    runs, job = [], chosen.job(source, recipe.measure.max_input)
    for form in forms:
        if form.plain:
            continue
        out = recipe.run_dir / "scores" / form.name / chosen.suite.name
        say(f"{chosen.suite.name}: {form.name}")
        manifest = read_manifest(form.place) if form.place.is_dir() else {}
        runs.append(Run(out, evaluate_suite(form.name, form.place, manifest, out, job, Quiet(lambda line: None))))
    return compare_runs(runs)


def _suite_score(comparison: Mapping[str, Any], name: str) -> dict[str, Any]:
    place = next(at for at, model in enumerate(comparison["models"]) if model["name"] == name)
    mean = comparison["mean"][place]
    return {
        "suite": comparison["models"][place]["suite"],
        "score": mean["score"], "interval": mean["interval"],
        "kept": mean.get("ratio", 1.0), "kept_interval": mean.get("ratio_interval"),
        "difference": mean.get("difference"), "difference_interval": mean.get("difference_interval"), "p": mean.get("p"),
        "verdict": verdict(mean.get("difference_interval")),
        "tasks": [
            {
                "task": task["task"], "metric": task["metric"], "rows": task["rows"], "chance": task["chance"],
                "score": (own := task["models"][place])["score"], "interval": own["interval"],
                "difference": own.get("difference"), "difference_interval": own.get("difference_interval"),
                "verdict": verdict(own.get("difference_interval")),
            }
            for task in comparison["tasks"]
        ],
    }  # fmt: skip


def verdict(interval: Sequence[float] | None) -> str:
    """What a difference's interval allows to say; None is that of the teacher."""
    if interval is None:
        return "reference"
    return "lower" if interval[1] < -ROUNDING else "higher" if interval[0] > ROUNDING else "no difference shown"


def _suite_info(chosen: ChosenSuite, comparison: Mapping[str, Any]) -> dict[str, Any]:
    roles = {get_task(name).role for name in chosen.tasks}
    kind = "mixed" if len(roles) > 1 else "zero-shot" if roles == {"zero_shot"} else "held-in"
    given = chosen.settings
    warnings = [one for one in comparison["warnings"] if not one.startswith(SAID_ELSEWHERE)]
    return {
        "suite": chosen.suite.name, "kind": kind, "tasks": chosen.tasks, "split": chosen.suite.split, "limit": given.limit,
        "seed": given.seed if given.limit else None, "max_templates": given.max_templates, "warnings": warnings,
    }  # fmt: skip


def _described(form: Form, recipe: PipelineRecipe) -> dict[str, Any]:
    """Name, kind and sizes."""
    inside = form.place.is_relative_to(recipe.run_dir)
    told: dict[str, Any] = {
        "name": form.name, "label": label_of(form), "of": form.of, "stage": form.stage,
        "place": str(form.place.relative_to(recipe.run_dir)) if inside else recipe.teacher,
    }  # fmt: skip
    whole = sum(path.stat().st_size for path in form.place.rglob("*") if path.is_file())
    if is_export(form.place):
        export = read_export(form.place)
        size = sum(int(one["bytes"]) for one in export.files.values())
        return told | {
            "runtime": export.runtime, "precision": export.precision, "parameters": export.parameters, "bytes": size,
            "folder_bytes": whole,
        }  # fmt: skip
    parameters = parameter_count(load_model(form.place))
    weights = form.place / WEIGHTS_FILE
    size = 4 * parameters if form.plain or not weights.is_file() else weights.stat().st_size
    return told | {
        "runtime": "transformers" if form.plain else "mengzi-mt", "precision": "float32", "parameters": parameters,
        "bytes": size, "folder_bytes": whole,
    }  # fmt: skip


def frontiers(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, bool]]:
    """Of each form: whether it is on the frontier of kept score against latency, and against bytes."""
    kept = [entry["suites"][0]["kept"] for entry in entries]
    costs = {
        "latency": [entry["generate"]["p50_ms"] for entry in entries],
        "bytes": [entry["bytes"] for entry in entries],
    }
    found: list[dict[str, bool]] = []
    for at in range(len(entries)):
        found.append({name: _undominated(at, kept, cost) for name, cost in costs.items()})
    return found


def _undominated(at: int, kept: Sequence[float | None], cost: Sequence[float]) -> bool:
    own = kept[at]
    if own is None:
        return False
    return not any(
        other is not None and other >= own and cost[place] <= cost[at] and (other > own or cost[place] < cost[at])
        for place, other in enumerate(kept)
    )


def machine(threads: int, before: float | None, after: float | None) -> dict[str, Any]:
    """The machine, and whether others wanted its cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": _processor(), "cores": cores, "threads": threads, "system": f"{platform.system()} {platform.release()}",
        "load_before": before, "load_after": after, "busy": max(before or 0.0, after or 0.0) > cores,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
