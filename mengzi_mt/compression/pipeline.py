"""``compress run``: teacher → distil → prune → quantise → export, each stage once, and one report of all."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mengzi_mt.compression.distil import distil
from mengzi_mt.compression.export import ExportSettings, export
from mengzi_mt.compression.pipeline_measure import check_rows, chosen_suites, measure, write_results
from mengzi_mt.compression.pipeline_recipe import PipelineRecipe
from mengzi_mt.compression.pipeline_report import write_report
from mengzi_mt.compression.pipeline_stages import TEACHER, Stage, plan
from mengzi_mt.compression.pruning import prune
from mengzi_mt.config import dump_recipe
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.results import RESULTS_FILE
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.loop import train
from mengzi_mt.training.setup import set_up

REPORT_FILE = "report.html"
MODULES = {"ctranslate2": ("ctranslate2",), "onnx": ("onnx", "onnxruntime", "onnxscript")}
"""What a runtime's extra installs."""


def run_pipeline(recipe: PipelineRecipe, source: DataSource) -> Path:
    """Go through the stages that are not finished; returns the report.

    Ctrl-C ends training after a saved step, and everything else at once; the same recipe goes on from there.

    Raises:
        InputError: no teacher, a runtime that is not installed, a suite without rows, or as a stage raises it.
        RunError: as a stage raises it.
    """
    stages = plan(recipe)
    check_runtimes(recipe.forms())
    check_rows(chosen_suites(recipe), source)
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    (recipe.run_dir / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    results = {TEACHER: resolve(recipe.teacher)} | {stage.name: str(stage.result) for stage in stages}
    for number, stage in enumerate(stages, 1):
        status = stage.status()
        line = f"[{number}/{len(stages)}] {stage.name}"
        if status == "finished":
            _say(f"{line}: finished before ({stage.folder.name})")
            continue
        changed = stage.changes() if status == "to do" else None
        _say(f"{line}: " + ("goes on" if status == "interrupted" else f"anew, changed: {changed}" if changed else "begins"))
        with stage.timed():
            _run(stage, recipe, results[stage.source], source, stages)
    return write_pages(recipe, stages)


def _run(stage: Stage, recipe: PipelineRecipe, place: str, source: DataSource, stages: Sequence[Stage]) -> None:
    """Do one stage on the result of another."""
    if stage.kind == "distil":
        distil(recipe.distil_recipe(place, stage.folder), source)
    elif stage.kind == "prune":
        prune(recipe.prune_recipe(place, stage.folder), source)
    elif stage.kind == "fine-tune":
        train(set_up(recipe.rounding_recipe(place, stage.folder), source))
    elif stage.kind == "export":
        assert stage.form is not None
        export(Path(place), stage.result, stage.form)
    else:
        measured = measure(recipe, stages, source, lambda line: _say(f"  {line}"))
        (stage.folder / "measured.json").write_text(json.dumps(measured, ensure_ascii=False), encoding="utf-8")


def write_pages(recipe: PipelineRecipe, stages: Sequence[Stage]) -> Path:
    """``results.json`` and ``report.html`` of finished stages; returns the latter."""
    measured = json.loads((stages[-1].folder / "measured.json").read_text(encoding="utf-8"))
    results = measured | {"stages": [_cost(stage) for stage in stages]}
    write_results(results, recipe.run_dir / RESULTS_FILE)
    write_report(results, recipe.run_dir / REPORT_FILE)
    return recipe.run_dir / REPORT_FILE


def _cost(stage: Stage) -> dict[str, Any]:
    told = stage.told()
    return {
        "stage": stage.name, "source": stage.source, "folder": stage.folder.name, "seconds": told["seconds"],
        "settings": told["settings"],
    }  # fmt: skip


def check_runtimes(forms: Sequence[ExportSettings]) -> None:
    """See that what forms need is installed, before hours are spent.

    Raises:
        InputError: it names the extra.
    """
    for form in forms:
        missing = [name for name in MODULES.get(form.to, ()) if find_spec(name) is None]
        if missing:
            raise InputError(f"{missing[0]} is not installed", where=f"export.forms: {form.to} {form.precision}",
                             fix=f"pip install 'mengzi-mt[{form.to}]', or leave the form out")  # fmt: skip


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
