"""Speed of a teacher and its forms: interleaved, on real rows of suites, beside transformers alone.

Every round takes rows of its own; each form scores and generates them in batches, then some of them one by one, before the next
form does the same. Which form begins changes from round to round. Ratios are formed within a round, or of one input.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mengzi_mt.compression.measuring_plain import PlainTransformers
from mengzi_mt.compression.pipeline_recipe import MeasureSettings
from mengzi_mt.data.examples import TextExample, render_rows
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.evaluation.loading import load_exported
from mengzi_mt.evaluation.runner import Options, evaluation_templates
from mengzi_mt.evaluation.scoring import ChoiceScorer
from mengzi_mt.evaluation.suites import Suite
from mengzi_mt.models.t5 import load_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.runtimes.export_folder import is_export
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

KINDS = ("score", "generate")
MOST_CHOICES = 20
"""Rows with more choices are left out of what is timed: one of them is a hundred sequences for who scores a row for each."""


class Way(Protocol):
    """What scores and generates."""

    def score(self, examples: Sequence[TextExample]) -> list[list[float]]:
        """Log-probabilities of each example's choices."""

    def generate(self, examples: Sequence[TextExample]) -> list[str]:
        """Greedy answers."""


class _Own:
    """A checkpoint or an export, by this package."""

    def __init__(self, place: str, settings: MeasureSettings) -> None:
        tokenizer = load_tokenizer(place)
        limits: dict[str, Any] = {"max_input": settings.max_input, "batch_size": settings.batch}
        if is_export(place):
            loaded = load_exported(Path(place), tokenizer, **limits, max_new_tokens=settings.new_tokens)
            self.scorer, self.generator = loaded.scorer, loaded.generator
        else:
            model = load_model(place).eval()
            self.scorer = ChoiceScorer(model, tokenizer, **limits)
            self.generator = Generator(model, tokenizer, **limits, max_new_tokens=settings.new_tokens)

    def score(self, examples: Sequence[TextExample]) -> list[list[float]]:
        return [list(one.log_probabilities) for one in self.scorer.score(examples)]

    def generate(self, examples: Sequence[TextExample]) -> list[str]:
        return [one.text for one in self.generator.generate(examples)]


def load_way(place: str, plain: bool, settings: MeasureSettings) -> Way:
    """A form ready to run: by transformers alone (``plain``), or by this package and its runtimes."""
    if plain:
        return PlainTransformers(place, settings.batch, settings.max_input, settings.new_tokens)
    return _Own(place, settings)


def timed_examples(suites: Sequence[Suite], tasks: Sequence[str], source: DataSource, number: int) -> list[TextExample]:
    """Rows of the suites' tasks in equal parts, through the first template of each, shuffled; fewer where there are no more.

    Raises:
        InputError: a task without rows, or no task at all whose rows can be timed.
    """
    found: list[TextExample] = []
    share = -(-number // len(tasks))
    for name in tasks:
        suite, task = next(suite for suite in suites if name in suite.tasks), get_task(name)
        template = evaluation_templates(task, Options(split=suite.split_of(name), metric=suite.metric(name)))[0]
        rows = load_rows(task, suite.split_of(name), source, 2 * share).rows
        rendered = list(render_rows(task, template, rows, with_target=False))
        found += [one for one in rendered if len(one.choices or ()) <= MOST_CHOICES][:share]
    if not found:
        raise InputError(f"Every row of the suites has more than {MOST_CHOICES} choices", where="measure.suites", fix="add a suite")
    random.Random(0).shuffle(found)
    return found[:number]


@dataclass
class Times:
    """What one form took for one kind of work.

    Attributes:
        batched: wall seconds an input, one figure a round.
        alone: wall seconds of single inputs.
        processor: processor seconds an input, one figure a round.
        results: of the batched inputs.
    """

    batched: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    def summary(self, base: Times) -> dict[str, Any]:
        """The figures of ``results.json``; ratios are to ``base``."""
        paired = lambda ours, theirs: statistics.median(b / a for a, b in zip(ours, theirs, strict=True))  # noqa: E731
        p50, p95 = np.quantile(self.alone, [0.5, 0.95])
        return {
            "per_second": 1 / statistics.median(self.batched),
            "times_throughput": paired(self.batched, base.batched),
            "p50_ms": 1000 * float(p50),
            "p95_ms": 1000 * float(p95),
            "times_latency": paired(self.alone, base.alone),
            "processor_ms": 1000 * statistics.median(self.processor),
            "times_processor": paired(self.processor, base.processor),
            "same_answers": statistics.fmean(_answer(a) == _answer(b) for a, b in zip(self.results, base.results, strict=True)),
            "inputs": len(self.results),
            "alone": len(self.alone),
            "rounds": len(self.batched),
        }


def _answer(result: Any) -> Any:
    """The best choice's place, or the text."""
    return max(range(len(result)), key=result.__getitem__) if isinstance(result, list) else result


def measure_speed(
    ways: Mapping[str, Way], base: str, examples: Sequence[TextExample], settings: MeasureSettings, say: Callable[[str], None]
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """Figures of every form: ``score`` (null where no row has choices) and ``generate``.

    Args:
        ways: name to form.
        base: the one that ratios are to.
        examples: to take rounds from, again from the first where there are too few.
        settings: rounds and sizes.
        say: hears of progress.
    """
    work = {"score": [one for one in examples if one.choices], "generate": list(examples)}
    times = {(name, kind): Times() for name in ways for kind in KINDS if work[kind]}
    for way in ways.values():
        for kind in KINDS:
            if work[kind]:
                getattr(way, kind)(work[kind][:2])
    for number, order in enumerate(_orders(list(ways), settings.rounds)):
        say(f"speed: round {number + 1} of {settings.rounds}")
        for name in order:
            for kind in KINDS:
                if work[kind]:
                    part = _taken(work[kind], number * settings.rows, settings.rows)
                    _round(getattr(ways[name], kind), part, settings, times[name, kind])
    return {name: {kind: times[name, kind].summary(times[base, kind]) if work[kind] else None for kind in KINDS} for name in ways}


def _orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    """Another form first in every round."""
    for number in range(rounds):
        start = number % len(names)
        yield names[start:] + names[:start]


def _taken(examples: Sequence[TextExample], start: int, number: int) -> list[TextExample]:
    return [examples[place % len(examples)] for place in range(start, start + number)]


def _round(
    call: Callable[[Sequence[TextExample]], list[Any]], part: Sequence[TextExample], settings: MeasureSettings, to: Times
) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    for start in range(0, len(part), settings.batch):
        to.results += call(part[start : start + settings.batch])
    to.batched.append((time.perf_counter() - wall) / len(part))
    to.processor.append((time.process_time() - processor) / len(part))
    for one in part[: settings.alone]:
        wall = time.perf_counter()
        call([one])
        to.alone.append(time.perf_counter() - wall)
