"""``report.html`` of a pipeline: one file that opens offline, made of ``results.json`` (``mengzi-mt/compression/1``) alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mengzi_mt.compression.pipeline_figures import KEY, Point, pareto
from mengzi_mt.compression.pipeline_figures import STYLE as PICTURES
from mengzi_mt.evaluation.model_tables import letter, signed, signed_span
from mengzi_mt.evaluation.report_figures import duration, number, probability, span
from mengzi_mt.evaluation.report_style import FIGURES
from mengzi_mt.page import NOTHING, chinese, count, document, escape, finite

STYLE = """
td.lower { color: var(--wrong); font-weight: 600; }
td.higher { color: var(--right); font-weight: 600; }
td.name b { display: inline-block; min-width: 1.3em; }
tr.compressed td.name b { color: var(--accent-ink); }
tr.teacher td.name b { color: var(--majority); }
pre.settings { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; margin: 0; }
@media (min-width: 56rem) { tr.group td { border-top: 2px solid var(--line); } }
"""


EQUAL_AREA = 0.1
"""Of circles that say nothing by their size."""


def write_report(results: Mapping[str, Any], path: Path) -> None:
    """Write a pipeline's results as one self-contained HTML file."""
    path.write_text(page(results), encoding="utf-8", errors="xmlcharrefreplace")


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    machine = results["machine"]
    body = (
        _sample(results)
        + '<header><p class="soft small">Compression</p>'
        + f"<h1>{escape(results['name'])} <span class=soft>/ from {escape(results['teacher'])}</span></h1>"
        + (f"<p>{chinese(results['description'])}</p>" if results["description"] else "")
        + _facts(results)
        + "</header>"
        + _busy(machine)
        + _pictures(results)
        + _summary(results)
        + "".join(_suite(results, place) for place in range(len(results["suites"])))
        + _speed(results)
        + _sizes(results)
        + _stages(results)
        + _provenance(results)
    )
    return document(f"{results['name']} · compression", FIGURES + PICTURES + STYLE, body)


def megabytes(value: Any) -> str:
    """Bytes in millions."""
    known = finite(value)
    return NOTHING if known is None else f"{known / 1e6:,.1f} MB"


def milliseconds(value: Any) -> str:
    """A time of one input."""
    known = finite(value)
    return NOTHING if known is None else f"{known:.1f} ms" if known < 100 else f"{known:,.0f} ms"


def times(value: Any) -> str:
    """A ratio: ``3.8 ×``."""
    known = finite(value)
    return NOTHING if known is None else f"{known:.2f} ×" if known < 9.95 else f"{known:.1f} ×"


def counted(number_of: int, what: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"


def percent(value: Any) -> str:
    """A share with one decimal."""
    known = finite(value)
    return NOTHING if known is None else f"{100 * known:.1f}%"


def percent_span(interval: Sequence[float] | None) -> str:
    """A share's interval."""
    return "" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}%"


def _sample(results: Mapping[str, Any]) -> str:
    if results["data"]["source"] != "sample":
        return ""
    return (
        '<div class="banner" role="note"><strong>Bundled samples, not benchmarks</strong>The stages learnt from, and the scores '
        "are of, a few rows written for this project. They show that the pipeline runs, not what compression costs.</div>"
    )


def _busy(machine: Mapping[str, Any]) -> str:
    if not machine["busy"]:
        return ""
    return (
        '<div class="caution" role="note"><strong>Measured on a busy machine</strong> The load was '
        f"{_load(machine['load_before'])} before and {_load(machine['load_after'])} after the times were taken, on "
        f"{machine['cores']} cores: other programs wanted them too. Wall times are longer than on a "
        "quiet machine, most of all the 95th percentiles. "
        "Ratios are of forms measured in turn; processor times hardly depend on the load.</div>"
    )


def _load(value: Any) -> str:
    known = finite(value)
    return NOTHING if known is None else f"{known:.1f}"


def _facts(results: Mapping[str, Any]) -> str:
    forms = results["forms"]
    made = [form for form in forms if form["of"] == "compressed"] or forms[2:]
    smallest = min(made, key=lambda form: form["bytes"])
    fastest = min(made, key=lambda form: form["generate"]["p50_ms"])
    kept = [form["suites"][0]["kept"] for form in made]
    fast = fastest["generate"]
    told = {
        "teacher": f"{count(forms[1]['parameters'])} parameters",
        f"smallest: {smallest['label']}": f"{megabytes(smallest['bytes'])}, {times(smallest['smaller'])} smaller",
        f"fastest: {fastest['label']}": f"{milliseconds(fast['p50_ms'])} an answer, {times(fast['times_latency'])} shorter",
        f"kept of the {results['suites'][0]['kind']} score": _range(kept),
        "measured on": f"{results['machine']['threads']} of {results['machine']['cores']} cores",
        "all stages took": duration(sum(stage["seconds"] for stage in results["stages"])),
    }
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in told.items())
    return f'<dl class="facts">{facts}</dl>'


def _range(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    low, high = percent(min(known)), percent(max(known))
    return low if low == high else f"{low.removesuffix('%')}–{high}"


def _pictures(results: Mapping[str, Any]) -> str:
    info = results["suites"][0]
    costs = {
        "latency": ("Kept against latency", "ms for one answer, alone (p50), logarithmic", lambda form: form["generate"]["p50_ms"]),
        "bytes": ("Kept against size", "MB of weights, logarithmic", lambda form: form["bytes"] / 1e6),
    }
    drawn, largest = [], max(form["bytes"] for form in results["forms"])
    for key, (title, axis, cost) in costs.items():
        points = [
            Point(
                letter(place), form["label"], cost(form), form["suites"][0]["kept"], form["suites"][0]["kept_interval"],
                form["bytes"] / largest if key == "latency" else EQUAL_AREA, form["frontier"][key],
                "plain" if not place else form["of"],
            )
            for place, form in enumerate(results["forms"])
            if form["suites"][0]["kept"] is not None
        ]  # fmt: skip
        if points:
            drawn.append(f"<figure><figcaption>{title}</figcaption>{pareto(title, axis, points)}</figure>")
    if not drawn:
        return ""
    return (
        f'<section id="pictures"><h2>What is kept, and what it costs</h2><p class="soft small">Up: share of the teacher\'s score '
        f"on {escape(info['suite'])} ({info['kind']}), with its 95% interval. Left is better. "
        "Areas of circles in the first picture are bytes. "
        "Letters are those of the table below.</p>"
        f'<div class="pictures">{"".join(drawn)}</div>{KEY}</section>'
    )


def _row(form: Mapping[str, Any], place: int, cells: str, forms: Sequence[Mapping[str, Any]]) -> str:
    """A form's row; a thicker line stands above the first one that was made smaller."""
    begins = place and form["of"] == "compressed" != forms[place - 1]["of"]
    name = f'<td class="name"><b>{letter(place)}</b> {escape(form["label"])}</td>'
    return f'<tr class="{"group " if begins else ""}{form["of"]}">{name}{cells}</tr>'


def _cell(label: str, value: str, below: str = "", mark: str = "") -> str:
    under = f'<span class="soft interval">{below}</span>' if below else ""
    return f'<td class="n{" " + mark if mark else ""}" data-label="{label}">{value}{under}</td>'


def _table(heads: Sequence[str], rows: str, last: str = "") -> str:
    """A table of forms; ``last`` heads a column of words."""
    words = f"<th>{last}</th>" if last else ""
    return (
        f'<table class="wide"><thead><tr><th>form</th>{"".join(f"<th class=n>{head}</th>" for head in heads)}'
        f"{words}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _summary(results: Mapping[str, Any]) -> str:
    forms = results["forms"]
    names = [f"kept, {info['suite']}" for info in results["suites"]]
    rows = "".join(
        _row(
            form, place,
            _cell("weights", megabytes(form["bytes"]), f"{times(form['smaller'])} smaller")
            + _cell("an answer alone", milliseconds((one := form["generate"])["p50_ms"]), f"{times(one['times_latency'])} shorter")
            + _cell("answers in batches", f"{one['per_second']:,.0f}/s", times(one["times_throughput"]))
            + _cell("peak memory", megabytes(form["memory"]["peak"] if form["memory"] else None))
            + "".join(
                _cell(name, percent(suite["kept"]), percent_span(suite["kept_interval"]) or "the teacher's", _mark(suite))
                for name, suite in zip(names, form["suites"], strict=True)
            ),
            forms,
        )
        for place, form in enumerate(forms)
    )  # fmt: skip
    heads = ["weights", "an answer alone", "answers in batches", "peak memory", *map(escape, names)]
    threads = results["machine"]["threads"]
    return (
        f'<section id="forms"><h2>Forms</h2>{_table(heads, rows)}<p class="soft small">Ratios are to A: the teacher\'s weights '
        f"in float32 through transformers, at the same batch size ({results['settings']['batch']}), on {threads} "
        f"thread{'s' if threads > 1 else ''}. Kept: share of the teacher's mean score with its 95% interval (paired bootstrap "
        "over rows); in colour only where the difference's interval does not hold 0.</p></section>"
    )


def _mark(one: Mapping[str, Any]) -> str:
    return one["verdict"] if one["verdict"] in ("lower", "higher") else ""


def _suite(results: Mapping[str, Any], at: int) -> str:
    info, forms = results["suites"][at], results["forms"]
    shown = [(place, form) for place, form in enumerate(forms) if place]
    rows = "".join(
        _row(
            form, place,
            _cell("mean score", number((one := form["suites"][at])["score"]), span(*one["interval"]))
            + _cell("kept", percent(one["kept"]), percent_span(one["kept_interval"]))
            + (
                _cell("to the teacher", signed(one["difference"]), signed_span(one["difference_interval"]), _mark(one))
                if one["difference"] is not None else _cell("to the teacher", NOTHING)
            )
            + _cell("p", probability(one["p"]))
            + f'<td class="full small">{_said(one["verdict"])}</td>',
            forms,
        )
        for place, form in shown
    )  # fmt: skip
    tasks = counted(len(info["tasks"]), "task")
    drawn = f"{count(info['limit'])} rows a task at most" if info["limit"] else "all rows"
    most = info["max_templates"]
    templates = "" if not most else ", one template" if most == 1 else f", {most} templates"
    notes = "".join(f"<li>{chinese(warning)}</li>" for warning in info["warnings"])
    return (
        f'<section id="suite-{at}"><h2>{escape(info["suite"])} <span class="pill">{info["kind"]}</span></h2>'
        f'<p class="soft small">Mean of {tasks}, split {escape(info["split"])}, {drawn}{templates}. Intervals '
        "are of rows, not of training runs: another seed of the same stages would differ by more.</p>"
        + (f'<div class="caution" role="note"><ul>{notes}</ul></div>' if notes else "")
        + _table(["mean score", "kept", "to the teacher", "p"], rows, "verdict")
        + f"<details><summary>{tasks}</summary><div class=inside>{_tasks(shown, at)}</div></details></section>"
    )


def _said(verdict: str) -> str:
    return {"reference": "the reference", "lower": "lower", "higher": "higher"}.get(verdict, verdict)


def _tasks(shown: Sequence[tuple[int, Mapping[str, Any]]], at: int) -> str:
    """A table of tasks by forms."""
    heads = "".join(f'<th class="n">{letter(place)}</th>' for place, _ in shown)
    rows = ""
    for number_of_task, first in enumerate(shown[0][1]["suites"][at]["tasks"]):
        cells = ""
        for place, form in shown:
            task = form["suites"][at]["tasks"][number_of_task]
            cells += _cell(letter(place), number(task["score"]), span(*task["interval"]), _mark(task))
        rows += (
            f'<tr><td class="name">{escape(first["task"])}<span class="soft">{escape(first["metric"])}, {count(first["rows"])} '
            f"rows, chance {number(first['chance'])}</span></td>{cells}</tr>"
        )
    head = f"<thead><tr><th>task</th>{heads}</tr></thead>"
    return f'<div class="scroll"><table class="list systems">{head}<tbody>{rows}</tbody></table></div>'


def _speed(results: Mapping[str, Any]) -> str:
    forms = results["forms"]
    sections = []
    for kind, title in (("generate", "Greedy answers"), ("score", "Scoring of choices")):
        if forms[0][kind] is None:
            continue
        rows = "".join(
            _row(
                form, place,
                _cell("alone, p50", milliseconds((one := form[kind])["p50_ms"]), f"{times(one['times_latency'])} shorter")
                + _cell("alone, p95", milliseconds(one["p95_ms"]))
                + _cell("in batches", f"{one['per_second']:,.1f}/s", times(one["times_throughput"]))
                + _cell("processor", milliseconds(one["processor_ms"]), f"{times(one['times_processor'])} less")
                + _cell("same as A", percent(one["same_answers"])),
                forms,
            )
            for place, form in enumerate(forms)
        )  # fmt: skip
        first = forms[0][kind]
        sections.append(
            f"<h3>{title}</h3>{_table(['alone, p50', 'alone, p95', 'in batches', 'processor', 'same as A'], rows)}"
            f'<p class="soft small">{first["inputs"]} inputs in {first["rounds"]} rounds, {first["alone"]} of them alone too.</p>'
        )
    settings = results["settings"]
    return (
        '<section id="speed"><h2>Speed</h2><p class="soft small">All forms in turn on the same rows of the suites, batches '
        f"of {settings['batch']}, at most {settings['new_tokens']} new tokens. Processor: its time for an input in batches. Same "
        f"as A: the best choice, or the text. A scores a row for each choice.</p>{''.join(sections)}</section>"
    )


def _sizes(results: Mapping[str, Any]) -> str:
    forms = results["forms"]
    rows = "".join(
        _row(
            form, place,
            _cell("parameters", count(form["parameters"]))
            + _cell("weights", megabytes(form["bytes"]), f"{times(form['smaller'])} smaller")
            + _cell("whole folder", megabytes(form["folder_bytes"]))
            + _cell("peak memory", megabytes(form["memory"]["peak"] if form["memory"] else None),
                    f"over {megabytes(form['memory']['before'])}" if form["memory"] else "")
            + _cell("runtime", escape(form["runtime"]), escape(form["precision"])),
            forms,
        )
        for place, form in enumerate(forms)
    )  # fmt: skip
    heads = ["parameters", "weights", "whole folder", "peak memory", "runtime"]
    return (
        f'<section id="sizes"><h2>Size and memory</h2>{_table(heads, rows)}'
        '<p class="soft small">Weights: bytes of their files (checkpoints may be stored in bfloat16); of A, four bytes a '
        "parameter. Smaller: than that. Peak memory: how far the resident memory of a fresh process rose above what it held with "
        "all libraries imported, while it loaded the form, scored and generated one batch.</p></section>"
    )


def _stages(results: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td class="name">{escape(stage["stage"])}<span class="soft">of {escape(stage["source"])}</span></td>'
        f'<td class="n" data-label="took">{duration(stage["seconds"])}</td>'
        f'<td class="name mono" data-label="folder">{escape(stage["folder"])}</td></tr>'
        for stage in results["stages"]
    )
    return (
        '<section id="stages"><h2>Stages</h2><table class="wide"><thead><tr><th>stage</th><th class="n">took</th>'
        f"<th>folder</th></tr></thead><tbody>{rows}</tbody></table>"
        '<p class="soft small">Wall time, over all interruptions.</p></section>'
    )


def _provenance(results: Mapping[str, Any]) -> str:
    machine = dict(results["machine"])
    load = f"{_load(machine.pop('load_before'))} before, {_load(machine.pop('load_after'))} after"
    machine = {**machine, "load": load, "busy": "yes" if machine["busy"] else "no"}
    return (
        '<section class="task" id="provenance"><h2>Provenance</h2><div class="columns">'
        + _definitions("Machine", machine)
        + _definitions("Versions", results["versions"])
        + _definitions("Data", results["data"])
        + _definitions("Measured with", {key: value for key, value in results["settings"].items() if key != "suites"})
        + _definitions("Report", {"created": results["created"], "schema": results["schema"]})
        + "</div></section>"
    )


def _definitions(title: str, values: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(value)}</dd>" for key, value in values.items())
    return f'<div><h3>{title}</h3><dl class="plain">{items}</dl></div>'
