"""Our metrics as ``evaluate.Metric`` objects, for those who combine them with that library's tools.

``evaluate.load("accuracy")`` fetches a script from the hub; these are local. Importing this module imports ``evaluate``,
which takes seconds, so nothing else here does.
"""

from __future__ import annotations

from typing import Any

import datasets

import evaluate
from mengzi_mt.errors import InputError, nearest
from mengzi_mt.evaluation.metrics import CHOICE_METRICS, TEXT_METRICS


class LocalMetric(evaluate.Metric):
    """One of our metrics by ``config_name``: predictions and references are label indices, or texts with lists of texts."""

    def _info(self) -> evaluate.MetricInfo:
        kind = datasets.Value("int64") if self.config_name in CHOICE_METRICS else datasets.Value("string")
        references = kind if self.config_name in CHOICE_METRICS else datasets.Sequence(kind)
        function = {**CHOICE_METRICS, **TEXT_METRICS}[self.config_name]
        return evaluate.MetricInfo(
            description=function.__doc__ or "",
            citation="",
            inputs_description="predictions and references of equal length",
            features=datasets.Features({"predictions": kind, "references": references}),
        )

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        if self.config_name in CHOICE_METRICS:
            return {self.config_name: CHOICE_METRICS[self.config_name](predictions, references)}
        return {self.config_name: TEXT_METRICS[self.config_name](predictions, references)}


def metric(name: str) -> evaluate.Metric:
    """A metric by its task name (``accuracy``, ``macro_f1``, ``exact_match``, ``char_f1``, ``rouge``, ``bleu``, ``entity_f1``)."""
    known = {**CHOICE_METRICS, **TEXT_METRICS}
    if name not in known:
        raise InputError(f"There is no metric {name!r}", where="metric name", fix=nearest(name, known))
    return LocalMetric(config_name=name, keep_in_memory=True)
