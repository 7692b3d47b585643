"""The picture of ``mengzi-mt runs plot``: curves of one or several runs as one page or one SVG, both of which open offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.page import NOTHING, count, document, escape
from mengzi_mt.training.curves import COLOURS, HEIGHT, PALETTE, STYLE, WIDTH, Axis, Series, chart, short, written
from mengzi_mt.training.history import RunHistory, curve, numbers

MOST_RUNS = 2 * COLOURS
_SVG_COLUMNS = 2

_FIGURES = (
    PALETTE
    + STYLE
    + """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.6rem 2.2rem;
  margin: 1rem 0 0; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1.2rem 1.6rem; }
figure { margin: 0; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin-bottom: .35rem; font-weight: 600; }
figcaption .last { font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }
.about { margin-top: .8rem; }
h2 + dl.plain { margin: .8rem 0 1rem; }
.charts.small figcaption { font-size: .85rem; }
.charts.small svg.chart text { font-size: 16px; }
.swatch { display: inline-block; width: 1.4em; height: 0; border-top: 3px solid var(--c);
  margin-right: .45em; vertical-align: .25em; }
.swatch.dashed { border-top-style: dashed; }
.key { font-size: .85rem; color: var(--soft); margin: .4rem 0 0; }
.key span { margin-right: 1.2rem; }
"""
)


@dataclass(frozen=True)
class _Figure:
    title: str
    series: tuple[Series, ...]
    axis: Axis


_CURVES: tuple[tuple[str, str, Axis], ...] = (
    ("Training loss", "loss", Axis(log=True)),
    ("Validation loss, mean of tasks", "validation_loss", Axis(log=True)),
    ("Learning rate", "learning_rate", Axis(zero=True)),
    ("Gradient norm", "gradient_norm", Axis(log=True)),
    ("Tokens per second, without padding", "tokens_per_second", Axis(zero=True)),
    ("Model FLOP utilisation", "mfu", Axis("share", zero=True)),
    ("Padding", "padding", Axis("share", zero=True)),
    ("Waiting for data", "data_wait", Axis("share", zero=True)),
    ("Peak memory of the process, MiB", "memory_mib", Axis(zero=True)),
    ("Peak memory of the GPU, MiB", "cuda_memory_mib", Axis(zero=True)),
)


def write_picture(runs: Sequence[RunHistory], path: Path) -> None:
    """Write the curves to an ``.html`` page, or to an ``.svg`` without the tasks' own curves.

    Raises:
        InputError: another ending, more runs than can be told apart, or nothing to draw.
    """
    if path.suffix.lower() not in (".html", ".svg"):
        raise InputError("A picture is a page or an SVG", where=str(path), fix="end the name in .html or .svg")
    if len(runs) > MOST_RUNS:
        raise InputError(f"{len(runs)} runs cannot be told apart", where="runs plot", fix=f"name at most {MOST_RUNS}")
    empty = [run.name for run in runs if not run.training]
    if empty:
        raise InputError(
            f"The run {empty[0]!r} has logged nothing yet", where=str(path), fix="wait for its first line, or leave it out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    text = svg(runs) if path.suffix.lower() == ".svg" else page(runs)
    path.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")


def _series(runs: Sequence[RunHistory], key: str, validation: bool = False) -> tuple[Series, ...]:
    found = []
    for number, run in enumerate(runs):
        points = curve(run.validations if validation else run.training, key)
        if points:
            found.append(Series(run.name, points, number % COLOURS, number >= COLOURS))
    return tuple(found)


def _main_figures(runs: Sequence[RunHistory]) -> list[_Figure]:
    figures = [_Figure(title, _series(runs, key, key == "validation_loss"), axis) for title, key, axis in _CURVES]
    return [figure for figure in figures if figure.series]


def _score_figures(runs: Sequence[RunHistory]) -> list[_Figure]:
    names = {name for run in runs for record in run.validations for name in numbers(_mapping(record.get("scores")))}
    figures = []
    for name in sorted(names):
        series = tuple(
            Series(run.name, points, number % COLOURS, number >= COLOURS)
            for number, run in enumerate(runs)
            if (points := _score_points(run, name))
        )
        figures.append(_Figure(name, series, Axis()))
    return figures


def _score_points(run: RunHistory, name: str) -> list[tuple[int, float]]:
    found = ((int(record["step"]), numbers(_mapping(record.get("scores"))).get(name)) for record in run.validations)
    return [(step, value) for step, value in found if value is not None]


def _task_figures(runs: Sequence[RunHistory]) -> list[_Figure]:
    """Training loss, and validation loss dashed, of each task; of several runs the validation loss where there is one."""
    figures = []
    for task in sorted({task for run in runs for task in run.tasks}):
        validation = _series(runs, f"validation_losses.{task}", validation=True)
        training = _series(runs, f"task_loss.{task}")
        if len(runs) == 1:
            series = tuple(Series("training", one.points, 0) for one in training)
            series += tuple(Series("validation", one.points, 1, dashed=True) for one in validation)
        else:
            series = validation or training
        if series:
            figures.append(_Figure(task, series, Axis(log=True)))
    return figures


def svg(runs: Sequence[RunHistory]) -> str:
    """The main curves as one SVG that follows the reader's light or dark setting."""
    figures = _main_figures(runs)
    cell, head = HEIGHT + 44, 34
    rows = -(-len(figures) // _SVG_COLUMNS)
    width, height = _SVG_COLUMNS * (WIDTH + 30), head + rows * cell
    end = max(run.step for run in runs)
    parts, x = [], 10
    for number, run in enumerate(runs):
        dashed = ' stroke-dasharray="5 4"' if number >= COLOURS else ""
        parts.append(f'<line class="c{number % COLOURS} line" x1="{x}" x2="{x + 20}" y1="16" y2="16"{dashed}/>')
        parts.append(f'<text class="title" x="{x + 26}" y="20">{escape(run.name)}</text>')
        x += 50 + 8 * len(run.name)
    for number, figure in enumerate(figures):
        left, top = (number % _SVG_COLUMNS) * (WIDTH + 30) + 5, head + (number // _SVG_COLUMNS) * cell
        parts.append(f'<text class="title" x="{left + 5}" y="{top + 18}">{escape(figure.title)}</text>')
        place = f'x="{left}" y="{top + 28}" width="{WIDTH}" height="{HEIGHT}"'
        parts.append(chart(figure.title, figure.series, figure.axis, hover=False, place=place, end=end))
    colours = (
        ":root { --paper: #fbfbfa; --ink: #1f2328; --soft: #5f6872; --line: #dfe2e6; }\n"
        "@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e3e6ea; --soft: #9aa4af; --line: #30363d; } }\n"
    )
    own = 'text.title { font: 600 13px -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }'
    lines = "".join(f".line.c{number} {{ stroke: var(--c{number}); stroke-width: 3; }}" for number in range(COLOURS))
    # As a stretched child of the picture a chart must keep the size that it is given.
    style = colours + PALETTE + STYLE.replace("width: 100%; height: auto; ", "") + own + lines
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(width, x)} {height}" role="img"><style>{style}</style>'
        f'<rect width="100%" height="100%" style="fill: var(--paper)"/>{"".join(parts)}</svg>\n'
    )


def page(runs: Sequence[RunHistory]) -> str:
    """The page as HTML."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    tasks = _task_figures(runs)
    key = (
        '<p class="key"><span><i class="swatch c0"></i>training</span><span><i class="swatch dashed c1"></i>validation</span></p>'
        if len(runs) == 1
        else ""
    )
    body = [
        _header(runs, title),
        _section("Curves", "Over optimiser steps; a band reaches from the least to the most of what one point averages.",
                 _main_figures(runs)),
        _section("Validation scores", "", _score_figures(runs), small=True),
        _section("Loss per task", key, tasks, small=True),
        *(_facts_section(run) for run in runs),
    ]  # fmt: skip
    return document(f"{title} — training curves", _FIGURES, "\n".join(part for part in body if part))


def _header(runs: Sequence[RunHistory], title: str) -> str:
    if len(runs) == 1:
        run = runs[0]
        facts = "".join(
            f"<div{mark}><dt>{name}</dt><dd>{value}</dd></div>"
            for name, value, mark in (
                ("loss", escape(_number(run.loss)), ' class="lead"'), ("state", run.outcome, ""), ("steps", steps_of(run), ""),
                ("best", escape(best_of(run)), ""), ("tokens", count(run.tokens), ""), ("time", duration(run.seconds), ""),
            )
        )  # fmt: skip
        return (
            f'<header><p class="soft small">training run</p><h1>{escape(title)}</h1><dl class="facts">{facts}</dl>'
            f'<p class="soft small about">{escape(str(run.recipe.get("description") or "").strip())}</p></header>'
        )
    rows = "".join(
        f'<tr><td class="name">{_swatch(number)}{escape(run.name)}</td>'
        f'<td data-label="state">{run.outcome}</td><td class="n" data-label="steps">{steps_of(run)}</td>'
        f'<td class="n" data-label="loss">{escape(_number(run.loss))}</td><td data-label="best">{escape(best_of(run))}</td>'
        f'<td class="n" data-label="tokens">{count(run.tokens)}</td>'
        f'<td class="n" data-label="time">{duration(run.seconds)}</td></tr>'
        for number, run in enumerate(runs)
    )
    heads = '<th>run</th><th>state</th><th class="n">steps</th><th class="n">loss</th><th>best</th><th class="n">tokens</th>'
    return (
        f'<header><p class="soft small">training runs</p><h1>{escape(title)}</h1><table class="wide"><thead><tr>{heads}'
        f'<th class="n">time</th></tr></thead><tbody>{rows}</tbody></table></header>'
    )


def _swatch(number: int) -> str:
    return f'<i class="swatch c{number % COLOURS}{" dashed" if number >= COLOURS else ""}"></i>'


def _section(title: str, lead: str, figures: Sequence[_Figure], small: bool = False) -> str:
    if not figures:
        return ""
    end = max(one.points[-1][0] for figure in figures for one in figure.series)
    drawn = "".join(_figure(figure, small, end) for figure in figures)
    if lead and not lead.startswith("<"):
        lead = f'<p class="soft small">{lead}</p>'
    return f'<section><h2>{title}</h2>{lead}<div class="charts{" small" if small else ""}">{drawn}</div></section>'


def _figure(figure: _Figure, small: bool, end: int) -> str:
    last = " / ".join(written(one.points[-1][1], figure.axis) for one in figure.series) if len(figure.series) <= 3 else ""
    return (
        f'<figure><figcaption><span>{escape(figure.title)}</span><span class="last">{last}</span></figcaption>'
        f"{chart(figure.title, figure.series, figure.axis, hover=not small, end=end)}</figure>"
    )


def _facts_section(run: RunHistory) -> str:
    """What the newest checkpoint says of tasks, data and licences."""
    data = _mapping(run.manifest.get("data"))
    examples = run.task_examples
    if not data:
        return ""
    rows = "".join(
        f'<tr><td class="name">{escape(task)}</td><td class="n" data-label="rows">{count(entry.get("rows"))}</td>'
        f'<td class="n" data-label="examples">{count(examples.get(task))}</td>'
        f'<td data-label="licence">{escape(entry.get("licence"))}</td><td data-label="research only">{terms(entry)}</td></tr>'
        for task, entry in sorted(data.items())
        if isinstance(entry, Mapping)
    )
    heads = '<th>task</th><th class="n">rows</th><th class="n">examples</th><th>licence as stated</th><th>research only</th>'
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in manifest_facts(run).items())
    return (
        f'<section class="task"><h2>Made of: {escape(run.name)}</h2><dl class="plain">{facts}</dl>'
        f'<table class="wide"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></section>'
    )


def manifest_facts(run: RunHistory) -> dict[str, str]:
    """Facts of the newest checkpoint's manifest that a reader asks for first."""
    manifest = run.manifest
    versions = _mapping(manifest.get("versions"))
    named = manifest.get("zero_shot_tasks_trained_on")
    facts = {
        "checkpoint": f"step {manifest['step']:,}" if isinstance(manifest.get("step"), int) else None,
        "parameters": count(manifest.get("parameters")) if "parameters" in manifest else None,
        "data": " ".join(str(part) for part in (manifest.get("data_source"), manifest.get("data_map")) if part) or None,
        "research only": terms(manifest) if "research_only" in manifest else None,
        "zero-shot tasks trained on": ", ".join(map(str, named)) if isinstance(named, list) and named else None,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def terms(entry: Mapping[str, Any]) -> str:
    """``research_only`` of a task or a manifest in a word."""
    return {True: "yes", False: "no"}.get(entry.get("research_only", "unknown"), "unknown")


def steps_of(run: RunHistory) -> str:
    """Steps done of steps wanted."""
    return f"{run.step:,}" + (f" / {run.steps:,}" if run.steps else "")


def best_of(run: RunHistory) -> str:
    """The best validation with its step."""
    best = run.best
    return NOTHING if best is None else f"{best.score} {best.value:.4g} @ {best.step:,}"


def duration(seconds: float | None) -> str:
    """Seconds as ``1 h 02 min``, ``3 min 13 s`` or ``12 s``."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _number(value: float | None) -> str:
    return NOTHING if value is None else short(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
