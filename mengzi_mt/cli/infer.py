"""``mengzi-mt infer``: a downstream task on a text, on a file or on standard input."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from mengzi_mt.cli.common import print_json, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.sdk.catalogue import DownstreamTask
    from mengzi_mt.sdk.mengzi import Mengzi
    from mengzi_mt.sdk.tables import Line, Output

HELP = "Answer a downstream task: MODEL --task NAME TEXT, or --input FILE --output FILE, which goes on after an interruption."
CHUNK = 16
"""Batches that are read, answered and written together."""
EVERY_SECONDS = 30.0


def infer(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, exported folder or hub name; - for the shipped model.")],
    text: Annotated[str | None, typer.Argument(help="A text; without it --input or standard input.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Downstream task; without it they are listed.")] = None,
    source: Annotated[str | None, typer.Option("--input", help="File of rows (JSONL, CSV or text); - for standard input.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="File for rows with answers (JSONL or CSV).")] = None,
    kind: Annotated[str | None, typer.Option("--format", help="Of the input: jsonl, csv or text; by its ending.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Which column holds an input: text=review (again for others).")
    ] = None,
    also: Annotated[list[str] | None, typer.Option("--also", help="Another input beside TEXT: question=谁设计的？")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Labels of classify, separated by commas.")] = None,
    template: Annotated[
        str, typer.Option("--template", help="A template's name, several separated by commas, or a number of them that vote.")
    ] = "1",
    vote: Annotated[str, typer.Option("--vote", help="How several templates decide: mean or majority.")] = "mean",
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="Of a generated answer.")] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Of generation; 1 is greedy.")] = 1,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option("--no-repeat-ngram-size", min=0, help="No so many tokens in a row come twice; 0 lets them.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts a batch at most.")] = 64,
    max_input: Annotated[int, typer.Option("--max-input", min=16, help="Input tokens; longer texts are cut.")] = 512,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda …")] = "auto",
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or int8.")] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="torch, ctranslate2 or onnx; a checkpoint is converted once.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Name bad rows and write them without an answer.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Write the output anew.")] = False,
) -> None:
    """Answer texts."""
    from mengzi_mt.sdk.catalogue import find_task

    if task is None:
        _list_tasks()
        return
    found = find_task(task)
    options: dict[str, Any] = {"templates": _templates(template), "vote": vote}
    if labels is not None:
        options["labels"] = [label.strip() for label in labels.replace("，", ",").split(",") if label.strip()]
    if found.kind not in ("label", "relation"):
        options |= {"max_new_tokens": max_new_tokens, "beams": beams, "no_repeat_ngram_size": no_repeat_ngram_size}
    from mengzi_mt.sdk.mengzi import Mengzi
    from mengzi_mt.training.memory import keep_freed_memory

    keep_freed_memory()
    settings: dict[str, Any] = {"device": device, "dtype": dtype, "backend": backend, "max_input": max_input}
    settings["batch_size"] = batch_size
    if text is not None:
        if source is not None or output is not None:
            raise InputError("A text and files are given", where="TEXT", fix="give TEXT alone, or --input and --output")
        row = {next(iter(found.inputs)): text, **_pairs(also or [], "--also")}
        print_json(Mengzi.load(_place(model), **settings).predict(task, [row], **options)[0].to_dict())
        return
    asked = {"task": found.name, **options, "max_input": max_input, "dtype": dtype, "backend": backend}
    job = _Job(found, source or "-", output, kind, _columns(found, column or []), batch_size * CHUNK, skip_bad, fresh, model, asked)
    try:
        job.run(lambda: Mengzi.load(_place(model), **settings), options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on behind the rows that are written", file=sys.stderr)
        raise typer.Exit(130) from None


def _place(model: str) -> str | None:
    return None if model == "-" else model


def _templates(given: str) -> Any:
    return int(given) if given.isdecimal() else [name.strip() for name in given.split(",")]


def _columns(task: DownstreamTask, given: list[str]) -> dict[str, str]:
    """The column of every input; by default it is called as the input."""
    from mengzi_mt.errors import nearest

    named = _pairs(given, "--column")
    for name in named:
        if name not in task.inputs:
            raise InputError(
                f"The task has no input {name!r}", where=f"--column {name}={named[name]}", fix=nearest(name, task.inputs)
            )
    return {**{name: name for name in task.inputs}, **named}


def _pairs(given: list[str], option: str) -> dict[str, str]:
    pairs = {}
    for part in given:
        name, separator, value = part.partition("=")
        if not separator:
            raise InputError(f"{part!r} has no =", where=option, fix="write NAME=VALUE")
        pairs[name.strip()] = value
    return pairs


def _list_tasks() -> None:
    from mengzi_mt.sdk.catalogue import TASKS

    rows = [
        [one.name, one.title, " ".join(one.inputs), one.registry, len(one.template_names())] for one in TASKS.values()
    ]  # fmt: skip
    print_table("downstream tasks (--task NAME)", ["task", "title", "inputs", "registry", "templates"], rows, ["templates"])


@dataclass(frozen=True)
class _Job:
    """A file to be answered."""

    task: DownstreamTask
    source: str
    output: Path | None
    kind: str | None
    columns: dict[str, str]
    chunk: int
    skip_bad: bool
    fresh: bool
    model: str
    asked: dict[str, Any]

    def run(self, load: Any, options: dict[str, Any]) -> None:
        """Read, answer, write."""
        from mengzi_mt.sdk.tables import Output, format_of, read_lines

        with ExitStack() as open_files:
            file: BinaryIO = sys.stdin.buffer
            name = "standard input"
            if self.source != "-":
                name, path = self.source, Path(self.source)
                if not path.is_file():
                    raise InputError("The input does not exist", where=name, fix="check --input")
                file = open_files.enter_context(path.open("rb"))
            lines = read_lines(file, name, format_of(self.source, self.kind, "text"))
            done = 0
            target: BinaryIO = sys.stdout.buffer
            shape = format_of(str(self.output or ""), None, "jsonl")
            if self.output is not None:
                done = self._resume(lines)
                target = open_files.enter_context(self.output.open("ab"))
            output = Output(target, "csv" if shape == "csv" else "jsonl", self.task.name)
            self._answer(lines, output, load, options, done)

    def _resume(self, lines: Iterator[Line]) -> int:
        """Goes behind the rows that are written already; how many they are."""
        from mengzi_mt.sdk.job_settings import check_settings, write_settings
        from mengzi_mt.sdk.tables import already_written, check_same, format_of

        assert self.output is not None
        path = self.output
        settings = self._settings()
        if path.exists() and self.source != "-" and path.samefile(self.source):
            raise InputError("Input and output are the same file", where=str(path), fix="name another --output")
        path.parent.mkdir(parents=True, exist_ok=True)
        written = already_written(path, format_of(str(path), None, "jsonl"))
        if self.fresh or not written.rows:
            path.write_bytes(b"")
            write_settings(path, settings)
            return 0
        passed = list(islice(lines, written.rows))[-1:] if written.rows else []
        if not passed:
            raise InputError("The output has more rows than the input", where=str(path), fix="name another output, or --fresh")
        check_same(written, passed[0], self.task.name, path)
        check_settings(path, settings)
        os.truncate(path, written.size)
        print(f"{written.rows} rows are written already; going on behind them", file=sys.stderr, flush=True)
        return written.rows

    def _settings(self) -> dict[str, Any]:
        """What decides the answers, the weights by their hash."""
        from mengzi_mt.evaluation.provenance import weights_hash
        from mengzi_mt.resources import resolve
        from mengzi_mt.sdk.loading import shipped_model

        place = shipped_model() if self.model == "-" else resolve(self.model)
        return {"model": self.model, "weights": weights_hash(Path(place)), **self.asked}

    def _answer(self, lines: Iterator[Line], output: Output, load: Any, options: dict[str, Any], done: int) -> None:
        mengzi: Mengzi | None = None
        began = said = time.monotonic()
        answered = 0
        while part := list(islice(lines, self.chunk)):
            rows = [self._row(line) for line in part]
            good = [row for row in rows if row is not None]
            mengzi = mengzi or load()
            results = iter(mengzi.predict(self.task.name, good, **options))
            output.write(part, [None if row is None else next(results).to_dict() for row in rows])
            answered += len(part)
            now = time.monotonic()
            if sys.stderr.isatty() or now - said > EVERY_SECONDS:
                print(f"{done + answered:,} rows, {answered / (now - began):.1f} rows/s", file=sys.stderr, flush=True)
                said = now
        print(f"{done + answered:,} rows, {answered:,} of them now, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)

    def _row(self, line: Line) -> dict[str, str] | None:
        """A row's inputs; None for a bad one, where those are skipped."""
        from mengzi_mt.sdk.inputs import check_rows
        from mengzi_mt.sdk.tables import inputs_of

        try:
            inputs = inputs_of(line, self.columns, self.task.optional)
            try:
                return check_rows(self.task, [inputs])[0]
            except InputError as error:
                raise InputError(error.what, where=line.where, fix=error.fix) from error
        except InputError as error:
            if not self.skip_bad:
                raise
            print(f"warning: {error.paragraph()}", file=sys.stderr, flush=True)
            return None
