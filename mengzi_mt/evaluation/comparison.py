"""Models side by side, from their stored predictions: scores, differences to the first model, and whether they are significant.

What is compared is common to all: the same tasks, templates and rows, with the same prompts and choices. What is not common is
left out with a warning; what would make the comparison meaningless is refused.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.intervals import RESAMPLES, SEED, compare, holm, template_scores
from mengzi_mt.evaluation.metrics import get_metric
from mengzi_mt.evaluation.metrics.base import Array, Metric
from mengzi_mt.evaluation.model_tables import letter
from mengzi_mt.evaluation.records import Predictions, predictions_of
from mengzi_mt.evaluation.results import Run
from mengzi_mt.evaluation.scores import fitting, statistics

COMPARISON_SCHEMA = "mengzi-mt/comparison/1"
WARNED = ("suite", "normalisation", "convention", "precision", "max_input", "limit", "seed", "max_templates")


def compare_runs(runs: Sequence[Run], resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Any]:
    """The comparison as JSON (``mengzi-mt/comparison/1``).

    A task's score is the median over the common templates; its interval and the difference's are of rows drawn once for all
    templates and models (:func:`mengzi_mt.evaluation.intervals.paired_bootstrap_median`). The mean over tasks draws the rows of
    each task independently. Differences and ratios are to the first model.

    Args:
        runs: two or more.
        resamples: how many.
        seed: of the draws; a task's depend on it and on the task's name alone.

    Raises:
        InputError: fewer than two runs, samples beside real rows, different splits, no common task or template, no labels.
    """
    if len(runs) < 2:
        raise InputError("One model compares with nothing", where="compare", fix="name two or more result folders")
    warnings = _checked(runs)
    tasks, scores, drawn = [], [], []
    for name in _common_tasks(runs, warnings):
        entry, observed, resampled = _task(runs, name, warnings, resamples, seed)
        tasks.append(entry)
        scores.append(observed)
        drawn.append(resampled)
    for place in range(1, len(runs)):
        for task, p in zip(tasks, holm([task["models"][place]["p"] for task in tasks]), strict=True):
            task["models"][place]["p_holm"] = p
    return {
        "schema": COMPARISON_SCHEMA,
        "models": [_described(run) for run in runs],
        "split": runs[0].results["split"],
        "data": runs[0].results["data"],
        "resamples": resamples,
        "seed": seed,
        "warnings": warnings,
        "tasks": tasks,
        "mean": _scored(list(np.mean(scores, axis=0)), list(np.mean(drawn, axis=0))),
    }


def _described(run: Run) -> dict[str, Any]:
    model = run.results["model"]
    return {
        "name": run.name, "folder": str(run.folder), "hash": model["hash"], "parameters": model["parameters"],
        "created": run.results["created"], "suite": run.results["suite"],
        "zero_shot_tasks_trained_on": model["zero_shot_tasks_trained_on"],
    }  # fmt: skip


def _checked(runs: Sequence[Run]) -> list[str]:
    """What differs between the runs and must be known.

    Raises:
        InputError: samples beside real rows.
    """
    sources = [run.results["data"]["source"] for run in runs]
    if len({source == "sample" for source in sources}) > 1:
        raise InputError(
            "Bundled samples do not compare with real rows: " + _listed(sources), where="compare", fix="evaluate all on the same"
        )
    warnings = []
    if "sample" in sources:
        warnings.append("bundled samples, not the benchmark: the numbers show that the pipeline runs")
    for key in WARNED:
        values = [run.results[key] if key == "suite" else run.results["settings"][key] for run in runs]
        if len(set(values)) > 1:
            warnings.append(f"different {key.replace('_', ' ')}: {_listed(values)}")
    return warnings


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{letter(place)} {value}" for place, value in enumerate(values))


def _common_tasks(runs: Sequence[Run], warnings: list[str]) -> list[str]:
    """Tasks of all runs, in the first one's order.

    Raises:
        InputError: there is none, or one has different splits.
    """
    names = [task["task"] for task in runs[0].results["tasks"]]
    everywhere = [name for name in names if all(run.task(name) for run in runs)]
    everything = dict.fromkeys(task["task"] for run in runs for task in run.results["tasks"])
    if not everywhere:
        raise InputError("The runs have no task in common", where="compare", fix="evaluate all on the same suite")
    if missing := [name for name in everything if name not in everywhere]:
        warnings.append(f"left out, not evaluated in all runs: {', '.join(missing)}")
    for name in everywhere:
        splits = [(run.task(name) or {})["split"] for run in runs]
        if len(set(splits)) > 1:
            raise InputError(
                f"The runs have different splits of {name!r}: {_listed(splits)}",
                where="compare",
                fix="evaluate all on the same split",
            )
    return everywhere


def _task(
    runs: Sequence[Run], name: str, warnings: list[str], resamples: int, seed: int
) -> tuple[dict[str, Any], list[float], Array]:
    """A task's entry, each model's score, and its resampled scores, shape (models, resamples)."""
    entries = [run.task(name) or {} for run in runs]
    metric = get_metric(entries[0]["metric"])
    if any(entry["metric"] != metric.name for entry in entries):
        warnings.append(f"{name}: the runs score it by different metrics; here all by {metric.name}")
    stored = [{one.header.template: one for one in predictions_of(run.folder, run.results, name)} for run in runs]
    templates = _common_templates(name, stored, metric, warnings)
    row_ids = _common_rows(name, [[models[template] for models in stored] for template in templates], warnings)
    drawn, observed = [], []
    for models in stored:
        rows = [_rows(metric, models[template], row_ids) for template in templates]
        drawn.append(template_scores(metric, rows, resamples, (seed, zlib.crc32(name.encode()))))
        observed.append([float(metric.score(each.sum(axis=0))) for each in rows])
    by_template = [
        {"template": template, "models": _scored([one[place] for one in observed], [one[place] for one in drawn])}
        for place, template in enumerate(templates)
    ]
    medians, resampled = [float(np.median(one)) for one in observed], np.stack([np.median(one, axis=0) for one in drawn])
    entry = {
        "task": name, "title": entries[0]["title"], "metric": metric.name, "split": entries[0]["split"],
        "rows": len(row_ids), "chance": entries[0]["chance"], "majority": entries[0]["majority"],
        "models": _scored(medians, list(resampled)), "templates": by_template,
    }  # fmt: skip
    return entry, medians, resampled


def _scored(scores: Sequence[float], drawn: Sequence[Array]) -> list[dict[str, Any]]:
    """Each model's score and interval, and from the second on its difference to the first."""
    found = []
    for place, (score, resampled) in enumerate(zip(scores, drawn, strict=True)):
        low, high = np.quantile(resampled, [0.025, 0.975])
        one: dict[str, Any] = {"score": float(score), "interval": [float(low), float(high)]}
        if place:
            compared = compare(float(score), float(scores[0]), resampled, drawn[0])
            one |= {"difference": compared.difference, "difference_interval": list(compared.interval), "p": compared.p}
            one |= _kept(float(score), float(scores[0]), resampled, drawn[0])
        found.append(one)
    return found


def _kept(score: float, first: float, resampled: Array, first_resampled: Array) -> dict[str, Any]:
    """What share of the first model's score it is, with the interval over the same resamples; None where that score is 0."""
    if not first or not first_resampled.all():
        return {"ratio": score / first if first else None, "ratio_interval": None}
    return {
        "ratio": score / first,
        "ratio_interval": [float(end) for end in np.quantile(resampled / first_resampled, [0.025, 0.975])],
    }


def _common_templates(name: str, stored: Sequence[Mapping[str, Predictions]], metric: Metric, warnings: list[str]) -> list[str]:
    """Templates that every run has in the same wording, with answers that the metric measures.

    Raises:
        InputError: there is none.
    """
    common, left_out = [], {}
    for template in dict.fromkeys(template for models in stored for template in models):
        several = [models[template] for models in stored if template in models]
        if len(several) < len(stored):
            left_out[template] = "not evaluated in all runs"
        elif len({one.header.template_hash for one in several}) > 1:
            left_out[template] = "its wording differs"
        elif not all(one.header.labelled for one in several):
            left_out[template] = "rows without labels"
        elif not all(metric.name in fitting([metric.name], one) for one in several):
            left_out[template] = f"{metric.name} does not measure its answers"
        else:
            common.append(template)
    warnings += [f"{name}: the template {template} is left out: {reason}" for template, reason in left_out.items()]
    if not common:
        reasons = "; ".join(f"{template}: {reason}" for template, reason in left_out.items())
        raise InputError(
            f"The runs have no template of {name!r} in common: {reasons}",
            where="compare",
            fix="evaluate all with the same templates on a labelled split",
        )
    return common


def _common_rows(name: str, templates: Sequence[Sequence[Predictions]], warnings: list[str]) -> list[str]:
    """Ids of the rows that every run has, in the first one's order: a template may skip some, but then in every run.

    Raises:
        InputError: there is none, or a row's prompt, choices or answer differ between the runs.
    """
    kept: dict[str, None] = {}
    dropped: set[str] = set()
    for several in templates:
        ids = [set(one.column("row_id")) for one in several]
        shared = set.intersection(*ids)
        dropped |= set.union(*ids) - shared
        kept |= dict.fromkeys(row for row in several[0].column("row_id") if row in shared)
        _check_same(name, several, shared)
    row_ids = [row for row in kept if row not in dropped]
    if not row_ids:
        raise InputError(
            f"The runs have no row of {name!r} in common", where="compare", fix="evaluate all with the same limit and seed"
        )
    if dropped:
        warnings.append(f"{name}: compared on the {len(row_ids):,} rows that all runs have, without {len(dropped):,} others")
    return row_ids


def _check_same(name: str, several: Sequence[Predictions], rows: set[str]) -> None:
    columns = ["inputs", "choices", "gold"] if several[0].header.kind == "choice" else ["inputs", "references"]

    def content(one: Predictions) -> dict[str, Any]:
        values = zip(one.column("row_id"), *(one.column(column) for column in columns), strict=True)
        return {row: rest for row, *rest in values if row in rows}

    first = content(several[0])
    for other in several[1:]:
        content_of_other = content(other)
        different = [row for row in first if first[row] != content_of_other[row]]
        if different or other.header.choices != several[0].header.choices:
            raise InputError(
                f"{len(different):,} of {len(first):,} rows of {name!r} differ between the runs in prompt, choices or answer",
                where=f"template {other.header.template}" + (f", row {different[0]}" if different else ""),
                fix="evaluate all on the same data with the same version of task and templates",
            )


def _rows(metric: Metric, predictions: Predictions, row_ids: Sequence[str]) -> Array:
    """The metric's statistics of these rows, in this order; zeros for rows that the template does not use."""
    own = {row: place for place, row in enumerate(predictions.column("row_id"))}
    known = [own[row] for row in row_ids if row in own]
    selected = dataclasses.replace(predictions, table=predictions.table.take(known))
    found = statistics(metric.name, selected)
    rows = np.zeros((len(row_ids), found.shape[1]))
    rows[[place for place, row in enumerate(row_ids) if row in own]] = found
    return rows
