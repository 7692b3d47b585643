"""``mengzi-mt runs``: training runs read back as tables and pictures, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mengzi_mt.cli.common import AsJson, print_json, print_table

app = typer.Typer(help="Look at training runs: list them, show one, draw their curves.", no_args_is_help=True)

Root = Annotated[Path, typer.Option("--root", help="Folder that holds the run folders.")]


@app.command("list")
def list_runs(root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """One line a run: how it stands, last loss, best score, tokens, time."""
    from mengzi_mt.training.history import find_runs
    from mengzi_mt.training.history_page import best_of, duration, steps_of

    runs = find_runs(root)
    if as_json:
        print_json([run.summary() for run in runs])
        return
    rows = [
        (
            run.folder.relative_to(root) if run.folder != root else run.name,
            run.outcome,
            steps_of(run),
            _number(run.loss),
            best_of(run),
            f"{run.tokens:,}" if run.tokens is not None else "",
            duration(run.seconds),
        )
        for run in runs
    ]
    columns = ["run", "state", "steps", "loss", "best", "tokens", "time"]
    print_table(f"{len(runs)} runs in {root}", columns, rows, right=("steps", "loss", "tokens", "time"))


@app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(help="Run folder, or its name below --root.")],
    root: Root = Path("runs"),
    rows: Annotated[int, typer.Option(min=2, help="Lines of the curve at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """One run: its curve, the losses of its tasks, and what its newest checkpoint was made of."""
    from mengzi_mt.training.history import curve, open_run
    from mengzi_mt.training.history_page import best_of, duration, manifest_facts, steps_of, terms

    history = open_run(run, root)
    if as_json:
        manifest = {
            key: history.manifest.get(key) for key in ("step", "parameters", "counters", "data", "data_source", "research_only")
        }
        print_json({**history.summary(), "records": history.records, "manifest": manifest, "examples": history.task_examples})
        return
    facts = {
        "state": history.outcome,
        "steps": steps_of(history),
        "best": best_of(history),
        "tokens": f"{history.tokens or 0:,}",
        "time": duration(history.seconds),
        **manifest_facts(history),
    }
    typer.echo(f"{history.name} ({history.folder})")
    for name, value in facts.items():
        typer.echo(f"  {name}: {value}")
    validation = dict(curve(history.validations, "validation_loss"))
    shown = _spread(list(history.training), rows)
    print_table(
        f"{len(history.training)} records" + (f", {len(shown)} of them" if len(shown) < len(history.training) else ""),
        ["step", "loss", "validation", "grad", "lr", "tokens/s", "padding", "MFU"],
        [
            (
                f"{record['step']:,}",
                _number(record.get("loss")),
                _number(_at(validation, shown, number)),
                _number(record.get("gradient_norm")),
                _number(record.get("learning_rate")),
                f"{record.get('tokens_per_second') or 0:,.0f}",
                _share(record.get("padding")),
                _share(record.get("mfu")),
            )
            for number, record in enumerate(shown)
        ],
        right=("step", "loss", "validation", "grad", "lr", "tokens/s", "padding", "MFU"),
    )
    data: dict[str, Any] = dict(history.manifest.get("data") or {})
    print_table(
        f"{len(history.tasks)} tasks",
        ["task", "loss", "validation", "examples", "rows", "licence", "research only"],
        [
            (
                task,
                _last(curve(history.training, f"task_loss.{task}")),
                _last(curve(history.validations, f"validation_losses.{task}")),
                f"{history.task_examples[task]:,}" if task in history.task_examples else "",
                f"{data[task].get('rows', 0):,}" if task in data else "",
                data.get(task, {}).get("licence"),
                terms(data[task]) if task in data else "",
            )
            for task in history.tasks
        ],
        right=("loss", "validation", "examples", "rows"),
    )


@app.command("plot")
def plot_runs(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or their names below --root.")],
    root: Root = Path("runs"),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File that ends in .html or .svg; by default curves.html in the first run."),
    ] = None,
) -> None:
    """Draw the curves of one or several runs as one page (or SVG) that opens offline."""
    from mengzi_mt.training.history import open_run
    from mengzi_mt.training.history_page import write_picture

    histories = [open_run(name, root) for name in dict.fromkeys(runs)]
    path = output or histories[0].folder / "curves.html"
    write_picture(histories, path)
    typer.echo(str(path))


def _spread(records: list[Any], most: int) -> list[Any]:
    """At most ``most`` of the records, evenly, the last one among them."""
    if len(records) <= most:
        return records
    return [records[round((number + 1) * len(records) / most) - 1] for number in range(most)]


def _at(validation: dict[int, float], shown: list[Any], number: int) -> float | None:
    """The newest validation after the record shown before this one."""
    before = shown[number - 1]["step"] if number else 0
    steps = [step for step in validation if before < step <= shown[number]["step"]]
    return validation[max(steps)] if steps else None


def _number(value: Any) -> str:
    from mengzi_mt.page import finite
    from mengzi_mt.training.curves import short

    number = finite(value)
    if number is None:
        return ""
    return f"{number:.4f}" if 1e-3 <= abs(number) < 1_000 else short(number)


def _share(value: Any) -> str:
    return "" if value is None else f"{value:.1%}"


def _last(points: list[tuple[int, float]]) -> str:
    return _number(points[-1][1]) if points else ""
