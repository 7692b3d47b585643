"""``mengzi-mt prepare``: a recipe's examples, rendered and tokenised once for all runs that read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mengzi_mt.cli.common import AsJson, DataDir, DataKind, DataMapOption, cores, data_source, print_json, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mengzi_mt.data.prepare import Outcome
    from mengzi_mt.data.shards import ShardInfo

HELP = "Render and tokenise the mixture of a recipe into files that training reads: RECIPE [key.path=value …]."
_LINE_SECONDS = 5.0


def prepare(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    as_json: AsJson = False,
) -> None:
    """Parse, plan, estimate, prepare."""
    from mengzi_mt.config import load_recipe

    if engine not in ("local", "ray"):
        raise InputError(f"Unknown engine {engine!r}", where="--engine", fix="use local or ray")
    loaded = load_recipe(recipe, overrides)
    if loaded.mixture.vary_choices:
        raise InputError(
            "Choices that vary are decided when an example is drawn; there is nothing to prepare",
            where=f"recipe {loaded.name!r}, key mixture.vary_choices",
            fix="train without preparing, or set mixture.vary_choices=0",
        )
    source = data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map)

    from mengzi_mt.data import prepare as preparation
    from mengzi_mt.data.tokens import Encoder
    from mengzi_mt.data.workers import Engine
    from mengzi_mt.training.preparation import prepared_root, recipe_plans, set_up_data

    root = prepared_root(loaded)
    mixture, tokenizer = set_up_data(loaded, source)
    encoder = Encoder(tokenizer)
    plans = recipe_plans(loaded, source, mixture, tokenizer)
    work = preparation.find_work(plans)
    estimated = preparation.estimate(plans, work, encoder, root)
    preparation.refuse_if_full(estimated, root)
    if estimated.pairs:
        _say(
            f"{estimated.pairs:,} examples to be made, about {estimated.bytes / 1e6:,.0f} MB of {estimated.free / 1e6:,.0f} MB "
            f"free in {root}"
        )
    with _progress(estimated.pairs) as advance:
        outcomes = preparation.prepare(
            plans,
            work,
            encoder,
            workers=workers or cores(),
            engine=cast(Engine, engine),
            advance=advance,
        )
    if as_json:
        print_json({"root": str(root), "tasks": [_record(outcome) for outcome in outcomes]})
    else:
        _print(outcomes, root)


def _record(outcome: Outcome) -> dict[str, object]:
    manifest = outcome.manifest
    return {
        "task": manifest.task,
        "rows": manifest.rows,
        "templates": len(manifest.templates),
        **manifest.totals,
        "shards": len(manifest.shards),
        "reused_shards": outcome.reused,
        "folder": str(outcome.plan.folder),
    }


def _print(outcomes: Sequence[Outcome], root: Path) -> None:
    columns = ("task", "rows", "templates", "examples", "absent", "tokens", "MB", "")
    lines = []
    for outcome in outcomes:
        manifest, totals = outcome.manifest, outcome.manifest.totals
        shards = len(manifest.shards)
        how = (
            "reused"
            if outcome.reused == shards
            else "made"
            if not outcome.reused
            else f"made {shards - outcome.reused} of {shards}"
        )
        lines.append(_line(manifest.task, manifest.rows, len(manifest.templates), totals, how))
    sums = {key: sum(outcome.manifest.totals[key] for outcome in outcomes) for key in ("examples", "absent", "tokens", "bytes")}
    rows = sum(outcome.manifest.rows for outcome in outcomes)
    lines.append(_line("all", rows, sum(len(outcome.manifest.templates) for outcome in outcomes), sums, ""))
    print_table("prepared examples", columns, lines, columns[1:7])
    typer.echo(f"in {root}")


def _line(task: str, rows: int, templates: int, totals: dict[str, int], how: str) -> tuple[str, ...]:
    counts = [f"{number:,}" for number in (rows, templates, totals["examples"], totals["absent"], totals["tokens"])]
    return (task, *counts, f"{totals['bytes'] / 1e6:,.1f}", how)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _progress(pairs: int) -> Iterator[Callable[[ShardInfo], None]]:
    """A bar on a terminal, a line every few seconds elsewhere, both on standard error, in (row, template) pairs."""
    if not pairs:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        yield _plain_progress(pairs)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]} examples/s")
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    began = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("", total=pairs, rate="")

        def advance(info: ShardInfo) -> None:
            done = bar.tasks[0].completed + _pairs(info)
            bar.update(number, completed=done, rate=f"{done / (time.perf_counter() - began):,.0f}")

        yield advance


def _plain_progress(pairs: int) -> Callable[[ShardInfo], None]:
    began = said = time.perf_counter()
    done = 0

    def advance(info: ShardInfo) -> None:
        nonlocal done, said
        done += _pairs(info)
        now = time.perf_counter()
        if now - said >= _LINE_SECONDS or done >= pairs:
            said = now
            rate = done / (now - began)
            minutes, seconds = divmod(round((pairs - done) / rate), 60)
            _say(f"{done:,} of {pairs:,} ({done / pairs:.0%}) | {rate:,.0f} examples/s | ETA {minutes}:{seconds:02d}")

    return advance


def _pairs(info: ShardInfo) -> int:
    return info.examples + info.absent + info.skipped
