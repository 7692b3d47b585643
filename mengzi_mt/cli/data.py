"""``mengzi-mt data``: what the data are, and whether evaluation texts stand in them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt.cli.common import AsJson, DataDir, DataKind, DataMapOption, data_source, print_json, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.data.row_lengths import Fill
    from mengzi_mt.tasks.rows import DataSource
    from mengzi_mt.tasks.task import Task

app = typer.Typer(help="What the data are: statistics, and evaluation texts in training data.", no_args_is_help=True)

Started = Callable[[str], Callable[[int], None]]
SPLITS_SHOWN = 3


@app.command("overlap")
def overlap(
    tasks: Annotated[str | None, typer.Option("--tasks", help="Training tasks, comma-separated; all by default.")] = None,
    against: Annotated[str | None, typer.Option("--against", help="Evaluation tasks; the nine of ZeroCLUE by default.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option("--corpus", help="Corpus too: JSON lines with `text`, .xz or .gz; may be repeated.")
    ] = None,
    min_han: Annotated[int, typer.Option(help="Texts with fewer Han characters are not compared.")] = 8,
    ngram: Annotated[int, typer.Option(help="Characters of an n-gram.")] = 8,
    share: Annotated[float, typer.Option(help="Share of a text's n-grams that one row must have for a near match.")] = 0.6,
    output: Annotated[Path | None, typer.Option("--output", help="Write every hit to this JSON file.")] = None,
    view_file: Annotated[
        Path | None, typer.Option("--write-view", help="Write the rows to leave out, for the recipe key data.exclude.")
    ] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    as_json: AsJson = False,
) -> None:
    """Find evaluation texts, of every split at hand, in training tasks and corpora; print counts."""
    from mengzi_mt.data import overlap as search
    from mengzi_mt.data.at_hand import for_each
    from mengzi_mt.data.corpus import check_corpus
    from mengzi_mt.evaluation.suites import load_suite

    settings = search.OverlapSettings(min_han, ngram, share)
    source = data_source(data, data_dir, data_map, default="files" if data_dir else "sample")
    training = _chosen(tasks, "train", "--tasks")
    evaluated = _chosen(against or ",".join(load_suite("zeroclue").tasks), "zero_shot", "--against")
    for path in corpus or ():
        check_corpus(path)
    began = time.perf_counter()
    texts = search.evaluation_texts(evaluated, source, settings)
    index = search.index_texts(texts, settings)
    with _progress(len(training) + len(corpus or ())) as started:
        compared, not_compared = for_each(
            training, source, lambda task: search.compare_task(index, task, source, started(task.name)), strict=tasks is not None
        )
        compared += [search.compare_corpus(index, path, started(path.name)) for path in corpus or ()]
    own = {"min_han": min_han, "ngram": ngram, "share": share}
    about = {"created": _now(), "seconds": round(time.perf_counter() - began, 1), "settings": {**own, **_described(source)}}
    report = search.make_report(texts, compared, not_compared, about)
    if output:
        _write_json(output, report)
    if view_file:
        _write_view(view_file, report, search.task_views(compared))
    if as_json:
        print_json({key: value for key, value in report.items() if key not in ("texts", "hits")})
    else:
        _print_overlap(report)


@app.command("stats")
def stats(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Folder or hub name of the tokenizer that counts tokens.")
    ] = "models/mengzi-mt-mini",
    html: Annotated[Path | None, typer.Option("--html", help="Write one page with plots that opens offline.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    as_json: AsJson = False,
) -> None:
    """Rows, labels and lengths of every split at hand, and the datasets' licences."""
    from mengzi_mt.data.at_hand import for_each
    from mengzi_mt.data.stats import STATS_SCHEMA, Stats, task_stats, token_counter
    from mengzi_mt.data.stats_page import write_page
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.resources import resolve
    from mengzi_mt.tasks.registry import get_task, task_names

    source = data_source(data, data_dir, data_map, default="files" if data_dir else "sample")
    tasks = [get_task(name) for name in names or task_names()]
    count_tokens = token_counter(load_tokenizer(resolve(tokenizer)))
    began = time.perf_counter()
    with _progress(len(tasks)) as started:

        def describe(task: Task) -> Stats:
            started(task.name)
            return task_stats(task, source, count_tokens)

        described, not_read = for_each(tasks, source, describe, strict=bool(names))
    result = {
        "schema": STATS_SCHEMA,
        "created": _now(),
        "seconds": round(time.perf_counter() - began, 1),
        "settings": {**_described(source), "tokenizer": tokenizer},
        "tasks": described,
        "not_read": not_read,
    }  # fmt: skip
    if html:
        write_page(result, html)
    if as_json:
        print_json(result)
    else:
        _print_stats(result)


def _print_stats(result: dict[str, Any]) -> None:
    lines = []
    for task in result["tasks"]:
        for name, split in task["splits"].items():
            balance: dict[str, Any] = next(iter(split["labels"].values()), {})
            characters, tokens = split["characters"], split["tokens"]
            lines.append(
                (
                    task["task"], name, f"{split['rows']:,}", f"{split['groups']:,}", split["skipped"], split["bad"],
                    len(balance["counts"]) if balance else "", f"{balance['majority']:.1%}" if balance else "",
                    f"{characters['p50']:,} / {characters['p95']:,}",
                    " / ".join(f"{tokens[key]:,}" for key in ("p50", "p95", "p99", "max")), task["licence"]["name"],
                )
            )  # fmt: skip
    columns = (
        "task", "split", "rows", "groups", "skipped", "bad", "labels", "majority", "characters p50 / p95",
        "tokens p50 / p95 / p99 / max", "licence",
    )  # fmt: skip
    print_table("bundled samples" if result["settings"]["data"] == "sample" else "data files", columns, lines, columns[2:10])
    for left in result["not_read"]:
        typer.echo(f"not read: {left['task']}: {left['reason']}")


def _chosen(names: str | None, role: str, option: str) -> list[Task]:
    from mengzi_mt.tasks.registry import all_tasks, get_task

    if names is None:
        return [task for task in all_tasks() if task.role == role]
    tasks = [get_task(name.strip()) for name in names.split(",") if name.strip()]
    for task in tasks:
        if task.role != role:
            raise InputError(
                f"The task {task.name!r} has the role {task.role}", where=option, fix=f"name tasks of the role {role} there"
            )
    return tasks


def _write_view(path: Path, report: dict[str, Any], views: dict[str, Any]) -> None:
    from mengzi_mt.data.view import write_view

    evaluation = {task: sum(side["rows"].values()) for task, side in report["evaluation"].items()}
    write_view(path, views, {"created": report["created"], "settings": report["settings"], "evaluation": evaluation})
    left_out = sum(len(view.exclude) for view in views.values())
    print(f"{path}: {left_out:,} rows of {len(views)} tasks to be left out", file=sys.stderr)


def _print_overlap(report: dict[str, Any]) -> None:
    rows_of = {side["name"]: side["rows"] for side in report["training"]}
    sides = report["evaluation"]
    lines = []
    for line in report["summary"]:
        texts = line["texts"]
        lines.append(
            (
                line["training"], line["evaluation"], f"{line['training_rows']:,} of {rows_of[line['training']]:,}",
                f"{texts['all']:,} of {sides[line['evaluation']]['texts']:,}", texts["equal"], texts["contained"], texts["near"],
                _most(line["evaluation_rows"]), _most(line["whole_rows"]),
            )
        )  # fmt: skip
    columns = (
        "training", "evaluation", "training rows", "evaluation texts", "equal", "contained", "near",
        "evaluation rows", "rows found whole",
    )  # fmt: skip
    print_table("evaluation texts in training rows", columns, lines, columns[2:7])
    clean = [side["name"] for side in report["training"] if not side["rows_with_hits"]]
    total = sum(side["texts"] for side in sides.values())
    short = sum(side["too_short"] for side in sides.values())
    typer.echo(
        f"{total:,} evaluation texts compared, {short:,} places with too few Han characters left aside; {report['seconds']} s"
    )
    typer.echo(f"nothing found in: {', '.join(clean) or 'none'}")
    for left in report["not_compared"]:
        typer.echo(f"not compared: {left['task']}: {left['reason']}")


def _most(counts: dict[str, int]) -> str:
    """Counts by split, the largest first, the rest together."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{split} {number:,}" for split, number in ordered[:SPLITS_SHOWN]]
    rest = sum(number for _, number in ordered[SPLITS_SHOWN:])
    return ", ".join([*shown, f"others {rest:,}"] if rest else shown)


@contextmanager
def _progress(total: int) -> Iterator[Started]:
    """A bar on a terminal, one line for each task elsewhere, both on standard error."""
    if not sys.stderr.isatty():
        yield _plain_progress(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("evaluation texts", total=total)
        begun = 0

        def started(name: str) -> Callable[[int], None]:
            nonlocal begun
            bar.update(number, description=name, completed=begun)
            begun += 1
            rows = 0

            def advance(more: int) -> None:
                nonlocal rows
                rows += more
                bar.update(number, description=f"{name}: {rows:,} rows")

            return advance

        yield started


def _plain_progress(total: int) -> Started:
    began = time.perf_counter()
    begun = 0

    def started(name: str) -> Callable[[int], None]:
        nonlocal begun
        begun += 1
        print(f"[{begun}/{total}] {name} ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
        return lambda _: None

    return started


@app.command("lengths")
def lengths(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    encoder: Annotated[int | None, typer.Option(help="Encoder length of the rows; by default lengths.max_input.")] = None,
    wanted: Annotated[float, typer.Option(help="Share of token slots that shall hold tokens.")] = 0.98,
    most: Annotated[int, typer.Option(help="Number of row lengths.")] = 8,
    examples: Annotated[int, typer.Option(help="Examples of the mixture to measure.")] = 8_192,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub name; by default the recipe's.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    as_json: AsJson = False,
) -> None:
    """How full the recipe's rows get, and which row lengths would get fuller (for the recipe key lengths.rows)."""
    from dataclasses import asdict

    from mengzi_mt.config import load_recipe
    from mengzi_mt.data.row_lengths import measure_fill, propose_rows, token_lengths
    from mengzi_mt.data.tokens import Encoder, Limits
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.resources import resolve
    from mengzi_mt.training.setup import TRAIN_TOKENIZER, read_mixture

    loaded = load_recipe(recipe, overrides)
    name = tokenizer or loaded.model.tokenizer or loaded.model.init
    if name is None or name == TRAIN_TOKENIZER:
        raise InputError("The recipe trains its tokenizer", where="model.tokenizer", fix="give one with --tokenizer")
    mixture = read_mixture(loaded, data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map))
    limits, batch = loaded.lengths, loaded.training.batch
    step = min(batch, examples)
    tokens = Encoder(load_tokenizer(resolve(name)))
    inputs, targets = token_lengths(mixture.examples(0, examples), tokens, Limits(limits.max_input, limits.max_target))
    now = measure_fill(inputs, targets, limits.rows, step)
    most_tokens = (limits.max_input, limits.max_target)
    found = list(propose_rows(inputs, targets, encoder or limits.max_input, most_tokens, step, wanted, most))
    lines = [("now", limits.rows, now), *(("", rows, fill) for rows, fill in found)]
    if as_json:
        print_json([{"rows": rows, **asdict(fill)} for _, rows, fill in lines])
        return
    title = (
        f"{len(inputs):,} examples of {sum(inputs) / len(inputs):.1f} input and {sum(targets) / len(targets):.1f} target tokens; "
        f"steps of {step}; share of slots that hold tokens"
    )
    columns = ("", "lengths.rows", "both sides", "encoder", "decoder", "rows a step")
    print_table(
        title,
        columns,
        [(mark, _list(rows), *_shares(fill), f"{fill.rows_per_step:.1f}") for mark, rows, fill in lines],
        columns[2:],
    )


def _list(rows: tuple[tuple[int, int], ...]) -> str:
    return str([list(row) for row in rows])


def _shares(fill: Fill) -> tuple[str, str, str]:
    return f"{fill.both:.1%}", f"{fill.encoder:.1%}", f"{fill.decoder:.1%}"


def _described(source: DataSource) -> dict[str, Any]:
    return {"data": source.kind, "data_map": source.data_map.name if source.data_map else None}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
