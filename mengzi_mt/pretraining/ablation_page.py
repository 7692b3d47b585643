"""An ablation's results to read: a page, a Markdown table and a picture of the differences. Shares are in percent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mengzi_mt.page import NOTHING, count, document, escape
from mengzi_mt.pretraining.ablation_results import ACCURACY, LOSS, decided

_ROW, _HEAD, _FOOT, _NAMES, _PANEL, _GAP = 30, 34, 40, 110, 150, 18
_STYLE = """
svg.differences { width: 100%; height: auto; max-width: 68rem; }
svg.differences text { font: 12px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", sans-serif;
  fill: var(--ink); font-variant-numeric: tabular-nums; }
svg.differences .soft { fill: var(--soft); }
svg.differences .zero { stroke: var(--soft); stroke-width: 1; }
svg.differences .line { stroke: var(--line); stroke-width: 1; }
svg.differences .open { stroke: var(--soft); fill: var(--soft); stroke-width: 2; }
svg.differences .decided { stroke: var(--accent-ink); fill: var(--accent-ink); stroke-width: 2.5; }
svg.differences .seed { fill: none; stroke: var(--soft); stroke-width: 1; }
td .soft { display: block; font-size: .82rem; }
section p { max-width: 60rem; }
"""
_ALONE = "svg { --ink: #1f2328; --soft: #5f6872; --line: #dfe2e6; --accent-ink: #1f5587; background: #ffffff; }"


def shown(measure: str, value: float, signed: bool = False) -> str:
    """A value of a measure: shares in percent, the loss in nats; a difference with its sign."""
    number = f"{value:.3f}" if measure == LOSS else f"{100 * value:.1f}"
    if float(number) == 0:
        return number.removeprefix("-")
    return f"+{number}" if signed and value > 0 else number.replace("-", "−")


def interval(measure: str, ends: Sequence[float] | None) -> str:
    """``[−0.4, +1.2]``, or nothing of a single seed."""
    return f"[{shown(measure, ends[0], True)}, {shown(measure, ends[1], True)}]" if ends else ""


def sentences(results: Mapping[str, Any]) -> list[str]:
    """What the intervals say, no more."""
    seeds = len(results["seeds"])
    if seeds < 2:
        return ["One seed: differences have no interval, and nothing follows from them."]
    others = [variant for variant in results["variants"] if variant["name"] != results["baseline"]]
    found = [
        f"{variant['name']}, {name}: {shown(name, one['difference'], True)} {interval(name, one['interval'])}"
        for variant in others
        for name, one in variant["measures"].items()
        if decided(one)
    ]
    total = sum(len(variant["measures"]) for variant in others)
    said = [
        f"Differences are from {results['baseline']} with the same seed; in brackets Student's 95% interval over {seeds} paired "
        "differences. It says how far other seeds might move a difference on these rows, nothing about other rows.",
        f"{total - len(found)} of {total} intervals hold zero. If no variant differed, about {total * 0.05:.1f} of so many would "
        "leave it out by chance.",
    ]
    return [*said, "Those that leave zero out: " + "; ".join(found) + "."] if found else said


def markdown(results: Mapping[str, Any]) -> str:
    """The table, ready to stand in a document."""
    measures, tasks = _measures(results), results["tasks"]
    heads = ["", *(f"{name} ({tasks[name]['metric']})" if name in tasks else name for name in measures), "time"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for variant in results["variants"]:
        cells = [variant["name"]]
        for name in measures:
            one = variant["measures"][name]
            added = ""
            if "difference" in one:
                added = f" ({shown(name, one['difference'], True)} {interval(name, one['interval'])}".rstrip() + ")"
            cells.append(shown(name, one["mean"]) + added)
        lines.append("| " + " | ".join([*cells, f"× {_time(results, variant):.2f}"]) + " |")
    return "\n".join([*lines, "", " ".join(sentences(results)), "", _read(results), ""])


def picture(results: Mapping[str, Any], alone: bool = False) -> str:
    """The differences as SVG: a panel for each measure, a line for each variant, small circles for the seeds.

    Args:
        results: of the ablation.
        alone: with its own colours, for a file.
    """
    measures = _measures(results)
    others = [variant for variant in results["variants"] if variant["name"] != results["baseline"]]
    width, height = _NAMES + len(measures) * (_PANEL + _GAP), _HEAD + _ROW * len(others) + _FOOT
    bottom = height - _FOOT + 4
    parts = [f'<text x="0" y="{_y(row)}">{escape(variant["name"])}</text>' for row, variant in enumerate(others)]
    for column, name in enumerate(measures):
        left = _NAMES + column * (_PANEL + _GAP)
        middle = left + _PANEL / 2
        reach = _reach([variant["measures"][name] for variant in others])

        def x(value: float, middle: float = middle, reach: float = reach) -> float:
            return round(middle + _PANEL / 2 * value / reach, 1)

        parts.append(f'<text x="{middle}" y="16" text-anchor="middle">{escape(name)}</text>')
        parts.append(f'<line class="zero" x1="{middle}" x2="{middle}" y1="{_HEAD - 8}" y2="{bottom}"/>')
        parts.append(f'<line class="line" x1="{left}" x2="{left + _PANEL}" y1="{bottom}" y2="{bottom}"/>')
        for end, anchor in ((-reach, "start"), (0.0, "middle"), (reach, "end")):
            label = shown(name, end, True)
            parts.append(f'<text class="soft" x="{x(end)}" y="{bottom + 16}" text-anchor="{anchor}">{label}</text>')
        for row, variant in enumerate(others):
            parts.append(_whisker(variant["name"], name, variant["measures"][name], x, _y(row) - 4))
    style = f"<style>{_ALONE}{_STYLE}</style>" if alone else ""
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    legend = (
        f'<text class="soft" x="{_NAMES}" y="{height - 4}">difference from {escape(results["baseline"])}: dot the mean, '
        "circles the seeds, line the 95% interval; blue where it leaves zero out</text>"
    )
    return f'<svg class="differences"{space} viewBox="0 0 {width} {height}" role="img">{style}{"".join(parts)}{legend}</svg>\n'


def _y(row: int) -> int:
    return _HEAD + _ROW * row + _ROW // 2 + 4


def _reach(measures: Sequence[Mapping[str, Any]]) -> float:
    """The farthest end of a panel's intervals and seeds, so that all is seen."""
    return max((abs(value) for one in measures for value in [*one["differences"], *(one["interval"] or [])]), default=0.0) or 1e-3


def _whisker(variant: str, name: str, one: Mapping[str, Any], x: Any, y: float) -> str:
    kind = "decided" if decided(one) else "open"
    said = escape(f"{variant}, {name}: {shown(name, one['difference'], True)} {interval(name, one['interval'])}")
    line = ""
    if one["interval"]:
        low, high = map(x, one["interval"])
        line = f'<line class="{kind}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
    seeds = "".join(f'<circle class="seed" cx="{x(value)}" cy="{y + 7}" r="2"/>' for value in one["differences"])
    return f'<g><title>{said}</title>{line}<circle class="{kind}" cx="{x(one["difference"])}" cy="{y}" r="3.5"/>{seeds}</g>'


def page(results: Mapping[str, Any]) -> str:
    """The whole report as one HTML file that opens offline."""
    budget, seeds = results["budget"], results["seeds"]
    text = [variant["text_tokens"] for variant in results["variants"]]
    hours = sum(run["seconds"] for run in results["runs"]) / 3600
    facts = {
        "runs": f"{len(results['variants'])} variants × {len(seeds)} seeds",
        "steps of a run": count(budget["steps"]),
        "tokens of text a run": count(sum(text) / len(text)),
        "hours of pretraining, all runs": f"{hours:.2f}",
        "corpus": escape(results["corpus"]["fingerprint"]),
        "tags by": escape(results["corpus"]["tagger"]),
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    warned = ""
    if results["data"]["source"] == "sample":
        warned = '<div class="caution" role="note">The tasks\' rows are the bundled samples: these scores mean nothing.</div>'
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(results))
    body = (
        f'<header><p class="soft small">Ablation</p><h1>{escape(results["name"])}</h1></header>{warned}'
        f'<dl class="facts">{listed}</dl>'
        f"<section><h2>Differences from {escape(results['baseline'])}</h2>{paragraphs}{picture(results)}</section>"
        f"<section><h2>Means over seeds</h2>{_table(results)}{_task_notes(results)}</section>"
        f"<section><h2>What was read</h2><p>{escape(_read(results))}</p>{_tokens_table(results)}</section>"
        f"<section><h2>Every run</h2>{_runs_table(results)}</section>"
        f'<section><h2>Settings</h2><details><summary>recipe and budget</summary><div class="inside"><pre class="mono small">'
        f"{escape(json.dumps({key: results[key] for key in ('recipe', 'budget')}, ensure_ascii=False, indent=1))}</pre></div>"
        "</details></section>"
    )
    return document(f"{results['name']}: ablation", _STYLE + "pre { overflow-x: auto; }", body)


def _measures(results: Mapping[str, Any]) -> list[str]:
    return list(results["variants"][0]["measures"])


def _time(results: Mapping[str, Any], variant: Mapping[str, Any]) -> float:
    """Of a variant's pretraining, in times of the baseline's."""
    first = results["variants"][0]["seconds"]
    return float(variant["seconds"] / first) if first else 1.0


def _table(results: Mapping[str, Any]) -> str:
    measures = _measures(results)
    rows = []
    for variant in results["variants"]:
        cells = [f'<td class="name">{escape(variant["name"])}<span class="soft">{escape(_changes(variant))}</span></td>']
        for name in measures:
            one = variant["measures"][name]
            added = ""
            if "difference" in one:
                added = f'<span class="soft">{shown(name, one["difference"], True)} {interval(name, one["interval"])}</span>'
            cells.append(f'<td class="n" data-label="{escape(name)}">{shown(name, one["mean"])}{added}</td>')
        cells.append(f'<td class="n" data-label="time">× {_time(results, variant):.2f}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _plain_table(["", *measures, "time"], rows)


def _changes(variant: Mapping[str, Any]) -> str:
    return json.dumps(variant["changes"]).strip("{}").replace('"', "") or "objectives as the recipe has them"


def _task_notes(results: Mapping[str, Any]) -> str:
    notes = []
    for name, task in results["tasks"].items():
        limits = [
            f"{word} {shown(name, task[key])}" for key, word in (("floor", "majority class"), ("ceiling", "reachable")) if task[key]
        ]
        notes.append(
            f"{name}: {task['metric'].replace('_', ' ')}, {count(task['train_rows'])} training and "
            f"{count(task['validation_rows'])} validation rows; {', '.join(limits)}"
        )
    return f'<p class="soft small">{escape(". ".join(notes))}. In percent, the loss in nats.</p>'


def _read(results: Mapping[str, Any]) -> str:
    variants = results["variants"]
    text = {variant["name"]: variant["text_tokens"] for variant in variants}
    first = text[results["baseline"]]
    different = [f"{name} {100 * (value / first - 1):+.2f}%" for name, value in text.items() if abs(value / first - 1) >= 5e-5]
    said = (
        f"Every run read {results['runs'][0]['examples']:,} windows in {results['budget']['steps']:,} steps, {first:,.0f} tokens "
        f"of text with {results['baseline']} (mean of {len(results['seeds'])} seeds)."
    )
    return said + (
        f" Tokens of text differ by: {', '.join(different)}." if different else " Tokens of text are equal for all variants."
    )


def _tokens_table(results: Mapping[str, Any]) -> str:
    keys = {"text_tokens": "tokens of text", "tokens": "with special tokens", "masked_tokens": "to restore"}
    rows = [
        f'<tr><td class="name">{escape(variant["name"])}</td>'
        + "".join(f'<td class="n" data-label="{name}">{count(variant[key])}</td>' for key, name in keys.items())
        + f'<td class="n" data-label="seconds">{count(variant["seconds"])}</td></tr>'
        for variant in results["variants"]
    ]
    return _plain_table(["", *keys.values(), "seconds of pretraining"], rows)


def _runs_table(results: Mapping[str, Any]) -> str:
    tasks = list(results["tasks"])
    rows = []
    for run in results["runs"]:
        scores = {task: shown(task, run["tasks"][task]["score"]) for task in tasks}
        scores |= {ACCURACY: shown(ACCURACY, run["held_out"]["accuracy"]), LOSS: shown(LOSS, run["held_out"]["loss"])}
        cells = "".join(f'<td class="n" data-label="{escape(name)}">{value}</td>' for name, value in scores.items())
        name = f'{escape(run["variant"])} <span class="soft">seed {run["seed"]}</span>'
        rows.append(f'<tr><td class="name">{name}</td>{cells}<td class="n" data-label="seconds">{count(run["seconds"])}</td></tr>')
    return _plain_table(["", *tasks, ACCURACY, LOSS, "seconds"], rows)


def _plain_table(heads: Sequence[str], rows: Sequence[str]) -> str:
    drawn = "".join(f"<th{' class=n' if number else ''}>{escape(head) if head else ''}</th>" for number, head in enumerate(heads))
    return f'<table class="wide"><thead><tr>{drawn}</tr></thead><tbody>{"".join(rows) or NOTHING}</tbody></table>'
