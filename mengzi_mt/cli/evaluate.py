"""``mengzi-mt evaluate`` and ``python evaluate.py``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.evaluation.runner import Watch
    from mengzi_mt.evaluation.suite_run import SuiteJob
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
    from mengzi_mt.evaluation.suite_run import SuiteJob
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
    job = SuiteJob(
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
    from mengzi_mt.models.devices import slow_bfloat16
    from mengzi_mt.training.devices import Devices
    from mengzi_mt.training.setup import warn

    devices = Devices(TrainingSettings(steps=1, device=device))
    warn(slow_bfloat16(precision, devices.device, "--precision float32 is faster and exact"))
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


def _folders(models: Sequence[str], output: Path | None, job: SuiteJob) -> list[Path]:
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


def _evaluate_model(model: str, out: Path, job: SuiteJob, devices: Devices) -> dict[str, Any]:
    """One model through the suite; what the main process writes and returns, {} in the others."""
    from mengzi_mt.evaluation.suite_run import evaluate_suite
    from mengzi_mt.resources import resolve
    from mengzi_mt.training.checkpoint import read_manifest
    from mengzi_mt.training.memory import keep_freed_memory

    keep_freed_memory()
    place = Path(resolve(model))
    manifest = read_manifest(place) if place.is_dir() else {}
    watch: Watch = Progress() if devices.main else Silence()
    return evaluate_suite(model, place, manifest, out, job, watch, device=devices.device, processes=devices)


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


def _label(model: str) -> str:
    parts = [part for part in Path(model).parts if part not in ("/", "..", ".", "runs", "models")]
    return "-".join(parts[-2:]) or "model"
