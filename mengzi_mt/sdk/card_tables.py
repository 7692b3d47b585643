"""Tables of a model card: scores of a suite, template by template, and what the training cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mengzi_mt.page import finite
from mengzi_mt.training.history import RunHistory

LOSSES_SHOWN = 11


def score_section(results: Mapping[str, Any]) -> list[str]:
    """A suite's table: medians over templates, the range, the median template's interval, chance, majority; then every template."""
    settings = results["settings"]
    sample = " **Bundled samples, no benchmark.**" if results["data"]["source"] == "sample" else ""
    lines = [
        f"## Scores: {results['suite']}, split {results['split']}",
        "",
        f"In percent: median over templates, with the 95% interval of that template over rows; lowest and highest template; "
        f"chance; share of the most frequent answer. Choices are ranked by `{settings['normalisation']}`.{sample}",
        "",
        "| task | metric | rows | templates | score | interval | lowest–highest | chance | majority |",
        "|---|---|---:|---:|---:|---|---|---:|---:|",
    ]
    for task in results["tasks"]:
        trained = "" if task["held_out"] else " (trained on)"
        lines.append(
            f"| {task['task']}{trained} | {task['metric']} | {task['rows']} | {len(task['templates'])} | "
            f"{_percent(task['score'])} | {_interval(task)} | {_percent(task['lowest'])}–{_percent(task['highest'])} | "
            f"{_percent(task['chance'])} | {_percent(task['majority'])} |"
        )
    if results["suite_score"] is not None:
        lines += ["", f"Mean of the {len(results['tasks'])} tasks: **{_percent(results['suite_score'])}**."]
    return [*lines, "", *_templates(results)]


def _templates(results: Mapping[str, Any]) -> list[str]:
    """Every template's score and interval, folded away."""
    lines = ["<details><summary>Every template</summary>", "", "| task | template | score | interval |", "|---|---|---:|---|"]
    for task in results["tasks"]:
        for template in task["templates"]:
            interval = template["intervals"].get(task["metric"])
            shown = "–".join(_percent(end) for end in interval) if interval else ""
            lines.append(
                f"| {task['task']} | `{template['template']}` | {_percent(template['metrics'].get(task['metric']))} | {shown} |"
            )
    return [*lines, "", "</details>"]


def _interval(task: Mapping[str, Any]) -> str:
    """Of the template whose score is nearest to the median."""
    scored = [one for one in task["templates"] if one["intervals"].get(task["metric"]) and task["score"] is not None]
    if not scored:
        return ""
    nearest = min(scored, key=lambda one: abs(one["metrics"][task["metric"]] - task["score"]))
    low, high = nearest["intervals"][task["metric"]]
    return f"{_percent(low)}–{_percent(high)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def cost_section(runs: Sequence[RunHistory]) -> list[str]:
    """Steps, tokens, arithmetic and time of each run, and its validation losses as they fell.

    The arithmetic is what the log measured (matrix products of the model, forward and backward); time is that of training steps,
    over all resumptions, without validation and start.
    """
    lines = ["## Cost and curves", "", "| run | steps | tokens | FLOPs | minutes |", "|---|---:|---:|---:|---:|"]
    for run in runs:
        flops = sum((finite(r.get("flops_per_second")) or 0.0) * (finite(r.get("seconds")) or 0.0) for r in run.training)
        minutes = "" if run.seconds is None else f"{run.seconds / 60:,.0f}"
        lines.append(f"| {run.name} | {run.step:,} | {run.tokens or 0:,} | {f'{flops:.1e}' if flops else ''} | {minutes} |")
    for run in runs:
        points = [(int(r["step"]), loss) for r in run.validations if (loss := finite(r.get("validation_loss"))) is not None]
        shown = _thinned(points)
        if shown:
            lines += [
                "",
                f"Held-out loss per target token of `{run.name}`:",
                "",
                "| step | " + " | ".join(f"{step:,}" for step, _ in shown) + " |",
                "|---|" + "---:|" * len(shown),
                "| loss | " + " | ".join(f"{loss:.3f}" for _, loss in shown) + " |",
            ]
    return lines


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most so many of the points, evenly, the last one among them."""
    every = max(1, -(-len(points) // LOSSES_SHOWN))
    return [point for place, point in enumerate(reversed(points)) if place % every == 0][::-1]
