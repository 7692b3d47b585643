"""From an ablation's scores to differences with intervals.

The interval of a difference is Student's over the seeds (docs/pretraining-encoders.md): a variant and the baseline of one seed
share weights at the start, windows and training rows, so their difference is one observation, and n seeds give n of them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mengzi_mt.data.token_shards import write_text
from mengzi_mt.errors import InputError, first_line
from mengzi_mt.pretraining.ablation_budget import parts
from mengzi_mt.pretraining.ablation_plan import HELD_OUT, Plan
from mengzi_mt.training.checkpoint import read_manifest
from mengzi_mt.training.run_status import METRICS, read_metrics
from mengzi_mt.training.saving import FINAL

SCHEMA = "mengzi-mt/ablation-results/1"
LEVEL = 0.95
MEAN, ACCURACY, LOSS = "mean of tasks", "masked tokens right", "masked tokens, loss"


def collect(plan: Plan) -> dict[str, Any]:
    """The results of a finished ablation.

    Raises:
        InputError: a score that is missing or damaged.
    """
    runs = [_run(plan, variant, seed) for variant, seed in plan.runs]
    tasks = list(plan.recipe.finetuning.tasks)
    measures = [*tasks, *([MEAN] if len(tasks) > 1 else []), ACCURACY, LOSS]
    values = {(run["variant"], run["seed"]): _values(run, tasks) for run in runs}
    seeds, baseline = plan.recipe.seeds, plan.recipe.baseline
    variants = []
    for name in plan.recipe.variants:
        by_measure = {}
        for measure in measures:
            own, other = ([values[variant, seed][measure] for seed in seeds] for variant in (name, baseline))
            by_measure[measure] = {"values": own, "mean": statistics.fmean(own)}
            if name != baseline:
                by_measure[measure] |= paired(own, other)
        own_runs = [run for run in runs if run["variant"] == name]
        variants.append({"name": name, "changes": plan.recipe.variants[name], "measures": by_measure, **_read(own_runs)})
    return {
        "schema": SCHEMA,
        "name": plan.recipe.name,
        "baseline": baseline,
        "seeds": list(seeds),
        "tasks": {task: _task(runs, task) for task in tasks},
        "variants": variants,
        "runs": runs,
        "budget": {**plan.budget.as_json(), "hours_by_part": parts(plan.budget, list(plan.recipe.variants), seeds)},
        "corpus": plan.corpus,
        "data": plan.data,
        "recipe": plan.recipe.model_dump(mode="json"),
    }


def _run(plan: Plan, variant: str, seed: int) -> dict[str, Any]:
    run_dir = plan.run_recipe(variant, seed).run_dir
    scores = {what: _score(plan.score_path(variant, seed, what)) for what in plan.scores}
    steps = [record["seconds"] for record in read_metrics(run_dir / METRICS) if "seconds" in record]
    return {
        "variant": variant,
        "seed": seed,
        **{key: read_manifest(run_dir / FINAL)["counters"][key] for key in ("tokens", "text_tokens", "masked_tokens", "examples")},
        "seconds": sum(steps),
        "held_out": scores.pop(HELD_OUT),
        "tasks": scores,
    }


def _score(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"A score cannot be read: {first_line(error)}", where=str(path), fix="remove it and give the command again"
        ) from error
    return found


def _values(run: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, float]:
    """A run's value of every measure; shares, and the loss in nats."""
    scores = {task: float(run["tasks"][task]["score"]) for task in tasks}
    return {**scores, MEAN: statistics.fmean(scores.values()), ACCURACY: run["held_out"]["accuracy"], LOSS: run["held_out"]["loss"]}


def _read(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a variant's runs read and took, mean of its seeds."""
    return {key: statistics.fmean(run[key] for run in runs) for key in ("tokens", "text_tokens", "masked_tokens", "seconds")}


def _task(runs: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    """What all runs have in common on a task."""
    first = runs[0]["tasks"][task]
    return {key: first.get(key) for key in ("kind", "metric", "train_rows", "validation_rows", "floor", "ceiling", "provenance")}


def paired(own: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The mean difference of paired values, and its interval; None of fewer than two pairs.

    mean ± t(n − 1, 0.975) · s / √n with the standard deviation s of the n differences (Student, 1908).
    """
    differences = [one - two for one, two in zip(own, other, strict=True)]
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return {"difference": mean, "differences": differences, "interval": None}
    half = t_quantile((1 + LEVEL) / 2, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return {"difference": mean, "differences": differences, "interval": [mean - half, mean + half]}


def decided(measure: Mapping[str, Any]) -> bool:
    """Whether a difference's interval leaves zero out."""
    interval = measure.get("interval")
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def t_quantile(share: float, freedom: int) -> float:
    """The value below which this share (above 1/2) of Student's t distribution lies, by bisection."""
    low, high = 0.0, 1.0
    while t_share(high, freedom) < share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, freedom) < share else (low, middle)
    return high


def t_share(value: float, freedom: int) -> float:
    """Share of Student's t distribution below a value (Abramowitz and Stegun, 26.7.3 and 26.7.4); ``freedom`` is whole."""
    angle = math.atan(value / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = 1.0, 0.0
    for number in range(1 + odd, freedom, 2):  # 1 + c²/2 + 1·3/(2·4) c⁴ + …, or c (1 + 2/3 c² + …) where freedom is odd
        total += term
        term *= number / (number + 1) * cosine**2
    if odd:
        return 0.5 + (angle + sine * cosine * total) / math.pi
    return 0.5 + sine * total / 2


def write_results(plan: Plan) -> Path:
    """Write ``results.json``, the page, the Markdown table and the picture; returns the page's path."""
    from mengzi_mt.pretraining.ablation_page import markdown, page, picture

    results = collect(plan)
    write_text(plan.folder / "results.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_text(plan.folder / "ablation.md", markdown(results))
    write_text(plan.folder / "ablation.svg", picture(results, alone=True))
    write_text(plan.folder / "report.html", page(results))
    return plan.folder / "report.html"
