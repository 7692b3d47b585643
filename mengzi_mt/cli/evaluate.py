"""``mengzi-mt evaluate`` and ``python evaluate.py``."""

from __future__ import annotations

import datetime
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt import __version__
from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.evaluation.runner import Options, Watch
    from mengzi_mt.evaluation.suites import Suite
    from mengzi_mt.tasks.rows import DataSource
    from mengzi_mt.tasks.task import Task
    from mengzi_mt.training.devices import Devices

HELP = "Score checkpoints zero-shot on a suite: MODEL … [--suite zeroclue]. The same command goes on after an interruption."
PRECISIONS = ("float32", "bfloat16")


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Checkpoint folders or hub names; several give one table.", metavar="MODEL…")],
    suite: Annotated[str, typer.Option("--suite", help="Suite: a shipped name or a YAML file.")] = "zeroclue",
    tasks: Annotated[str | None, typer.Option("--tasks", help="Only these tasks, separated by commas.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split; the suite's own by default.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    templates: Annotated[
        str | None, typer.Option("--templates", help="Names or patterns (*, ?), separated by commas; task/name means one task's.")
    ] = None,
    max_templates: Annotated[
        int | None, typer.Option("--max-templates", min=1, help="At most so many templates a task, in file order.")
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option("--limit", min=0, help="Rows a task: so many, or below 1 this share of them; the first, or a draw by --seed."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draw the rows of --limit at random by this seed.")] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Examples a batch at most; scores do not depend on it.")
    ] = 64,
    precision: Annotated[str, typer.Option("--precision", help="float32 or bfloat16.")] = "float32",
    max_input: Annotated[int, typer.Option("--max-input", min=16, help="Input tokens; longer shrinkable fields are cut.")] = 512,
    convention: Annotated[
        str,
        typer.Option("--convention", help="mengzi, or lm-eval: as lm-evaluation-harness scores (docs/evaluation.md)."),
    ] = "mengzi",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda …")] = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Result folder (of several models: the folder of theirs); by default in runs/eval."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Evaluate finished pairs of task and template again.")] = False,
) -> None:
    """Load, score, report."""
    from mengzi_mt.evaluation.conventions import CONVENTIONS
    from mengzi_mt.evaluation.runner import Options
    from mengzi_mt.evaluation.suites import load_suite
    from mengzi_mt.tasks.registry import get_task

    if precision not in PRECISIONS:
        raise InputError(
            f"Unknown precision {precision!r}", where="--precision", fix="use float32 or bfloat16 (float16 overflows in T5)"
        )
    if limit == 0 or (limit and limit > 1 and limit % 1):
        raise InputError(
            f"--limit {limit:g} is no number of rows", where="--limit", fix="give a whole number, or a share between 0 and 1"
        )
    named = next((one for one in CONVENTIONS if one == convention), None)
    if named is None:
        raise InputError(f"Unknown convention {convention!r}", where="--convention", fix=f"use {' or '.join(CONVENTIONS)}")
    chosen = load_suite(suite)
    names = [name.strip() for name in tasks.split(",")] if tasks else list(chosen.tasks)
    source = data_source(data, data_dir, data_map)
    patterns = tuple(name.strip() for name in templates.split(",")) if templates else ()
    _check_patterns(patterns, names)
    job = _Job(
        chosen,
        [get_task(name) for name in names],
        split,
        source,
        Options(
            split=split or chosen.split,
            normalisation=chosen.normalisation,
            templates=patterns,
            max_templates=max_templates,
            limit=limit,
            seed=seed,
        ),
        {"precision": precision, "max_input": max_input, "convention": named},
        batch_size,
        fresh,
    )
    from mengzi_mt.config import TrainingSettings
    from mengzi_mt.training.devices import Devices

    devices = Devices(TrainingSettings(steps=1, device=device))
    folders = _folders(models, output, job)
    results = []
    try:
        with devices.failures_explained():
            for model, folder in zip(models, folders, strict=True):
                results.append(_evaluate_model(model, folder, job, devices))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the finished templates", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        devices.close()
    if devices.main:
        for one in results:
            show_results(one)
        if len(results) > 1:
            show_together(results)
        for folder in folders:
            typer.echo(f"{folder / 'results.json'}\n{folder / 'report.html'}")


@dataclass(frozen=True)
class _Job:
    """What every model of the command is evaluated on, and how."""

    suite: Suite
    tasks: list[Task]
    split: str | None
    source: DataSource
    options: Options
    settings: dict[str, Any]
    batch_size: int
    fresh: bool

    def split_of(self, task: Task) -> str:
        return self.split or self.suite.split_of(task.name)


def _check_patterns(patterns: Sequence[str], tasks: Sequence[str]) -> None:
    """Names without a task need one task; tasks that are named must be evaluated."""
    for pattern in patterns:
        task, separator, _ = pattern.partition("/")
        if separator and task not in tasks:
            raise InputError(f"The task {task!r} is not evaluated", where=f"--templates {pattern}", fix="add it to --tasks")
        if not separator and len(tasks) != 1 and not set(pattern) & set("*?["):
            raise InputError(
                "A template's name needs its task", where=f"--templates {pattern}", fix=f"write task/{pattern}, or add --tasks NAME"
            )


def _folders(models: Sequence[str], output: Path | None, job: _Job) -> list[Path]:
    """A result folder for each model.

    Raises:
        InputError: two models would share one.
    """
    tail = f"{job.suite.name}-{job.options.split}{'-sample' if job.source.kind == 'sample' else ''}"
    if output and len(models) == 1:
        return [output]
    folders = [output / _label(model) if output else Path("runs/eval") / f"{_label(model)}-{tail}" for model in models]
    if len(set(folders)) != len(folders):
        raise InputError("Two of the models would write into the same result folder", where="MODEL", fix="evaluate them apart")
    return folders


def _evaluate_model(model: str, out: Path, job: _Job, devices: Devices) -> dict[str, Any]:
    """One model through the suite; what the main process writes and returns, {} in the others."""
    from dataclasses import replace

    from mengzi_mt.evaluation.entries import suite_score
    from mengzi_mt.evaluation.loading import load_scorers
    from mengzi_mt.evaluation.processes import SharedGenerator, SharedScorer
    from mengzi_mt.evaluation.provenance import published_of
    from mengzi_mt.evaluation.report import write_report
    from mengzi_mt.evaluation.results import RESULTS_SCHEMA
    from mengzi_mt.evaluation.runner import evaluate_task
    from mengzi_mt.training.memory import keep_freed_memory
    from mengzi_mt.training.setup import resolve

    began = time.perf_counter()
    keep_freed_memory()
    place = resolve(model)
    loaded = load_scorers(str(place), device=devices.device, batch_size=job.batch_size, **job.settings)
    scorer, generator = SharedScorer(loaded.scorer, devices), SharedGenerator(loaded.generator, devices)
    described = describe_model(model, Path(place), loaded.parameters) | {"architecture": loaded.kind, "scored_as": loaded.way}
    settings = {**job.settings, "precision": loaded.precision}
    run = None if job.fresh else {"model": described["hash"] or described["name"], **settings}
    watch: Watch = Progress() if devices.main else Silence()
    entries = [
        evaluate_task(
            task,
            job.source,
            replace(job.options, split=job.split_of(task), metric=job.suite.metric(task.name), run=run),
            scorer,
            generator,
            out,
            watch,
            devices,
            loaded.exact,
        )
        for task in job.tasks
    ]
    if not devices.main:
        return {}
    options = job.options
    results = {
        "schema": RESULTS_SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "suite": job.suite.name,
        "split": options.split,
        "data": {"source": job.source.kind, "note": _data_note(job.source)},
        "model": described,
        "settings": {
            "normalisation": options.normalisation, "limit": options.limit, "seed": options.seed,
            "max_templates": options.max_templates, **settings,
            "convention": loaded.scorer.convention.description, "processes": devices.count,
        },
        "published": published_of(job.suite, options.split),
        "tasks": entries,
        "suite_score": suite_score(entries),
        "suite_tasks": len(job.suite.tasks),
        "versions": _versions(),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_report(results, out / "report.html")
    return results


class Silence:
    """What the other processes say."""

    def begin(self, name: str, examples: int) -> Callable[[int], None]:
        """Nothing."""
        return lambda done: None

    def say(self, line: str) -> None:
        """Nothing."""


EVERY_SECONDS = 60.0


class Progress:
    """How far an evaluation is, on standard error: a bar on a terminal, else a line a minute."""

    def __init__(self) -> None:
        self.bar: Any = None

    def begin(self, name: str, examples: int) -> Callable[[int], None]:
        """A pair begins."""
        return self._bar(name, examples) if sys.stderr.isatty() else self._lines(name, examples)

    def _bar(self, name: str, examples: int) -> Callable[[int], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.close()
        self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        bar, shown = self.bar, self.bar.add_task(name, total=examples)
        return lambda done: bar.advance(shown, done)

    def _lines(self, name: str, examples: int) -> Callable[[int], None]:
        began = said = time.monotonic()
        finished = 0

        def advance(done: int) -> None:
            nonlocal finished, said
            finished += done
            now = time.monotonic()
            if now - said >= EVERY_SECONDS and finished < examples:
                left = (now - began) * (examples - finished) / finished
                print(f"{name}: {finished} of {examples} rows, {left:.0f} s left", file=sys.stderr, flush=True)
                said = now

        return advance

    def close(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def say(self, line: str) -> None:
        """One line that stays."""
        self.close()
        print(line, file=sys.stderr, flush=True)


def show_results(results: dict[str, Any]) -> None:
    """The table in the terminal, with what a reader must know above it."""
    from mengzi_mt.evaluation.report import terminal_rows

    columns, rows = terminal_rows(results)
    kind = results["data"]["source"]
    title = f"{results['model']['name']} on {results['suite']} / {results['split']} ({kind})"
    print_table(title, columns, rows, [c for c in columns if c not in ("task", "title", "notes")])
    if results["data"]["note"]:
        typer.echo(results["data"]["note"])
    if results["suite_score"] is not None:
        part = len(results["tasks"]) < results["suite_tasks"]
        name = f"mean of {len(results['tasks'])} of the suite's {results['suite_tasks']} tasks" if part else "suite score"
        typer.echo(f"{name} (of the tasks' medians over templates): {results['suite_score']:.4f}")


def show_together(results: list[dict[str, Any]]) -> None:
    """One table of several models."""
    from mengzi_mt.cli.compare import show_models
    from mengzi_mt.evaluation.model_tables import models_table

    columns, rows = models_table(results)
    show_models([one["model"]["name"] for one in results])
    print_table("", columns, rows, [name for name in columns if name not in ("task", "title")])
    typer.echo("whether differences are significant: mengzi-mt compare, with these result folders")


def _data_note(source: DataSource) -> str | None:
    if source.kind == "sample":
        return (
            "These are bundled samples written for this project, not the benchmarks: no score here compares with a published one."
        )
    return f"data map: {source.data_map.name}" if source.data_map else None


def describe_model(name: str, place: Path, parameters: int) -> dict[str, Any]:
    """The model's provenance for results: hash of its weights, and what its manifest says it was trained on."""
    from mengzi_mt.evaluation.provenance import contamination_of, weights_hash
    from mengzi_mt.training.checkpoint import read_manifest

    manifest = read_manifest(place) if place.is_dir() else {}
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


def _label(model: str) -> str:
    parts = [part for part in Path(model).parts if part not in ("/", "..", ".", "runs", "models")]
    return "-".join(parts[-2:]) or "model"


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {
        "mengzi_mt": __version__, "python": platform.python_version(),
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
