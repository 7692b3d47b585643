"""How fast our templates render beside promptsource's ``apply`` and ``get_answer_choices_list``, on the same rows.

``python -m benchmarks.render_speed [--rounds 7] [--json]``. Needs promptsource 0.2.3 (see docs/promptsource.md). An example is
input, target and choices; the texts are compared first. One process, one thread, its processor time; every round runs each
renderer once, and ratios are formed within a round. ``truncate=False``: promptsource's truncation destroys Chinese.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import yaml

from benchmarks.promptsource_parity import import_reference, reference_loader
from mengzi_mt.data.examples import bound_templates, usable
from mengzi_mt.prompts.promptsource import PromptsourceTemplate
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import TemplateSet, dump_templates
from mengzi_mt.tasks.registry import get_task, task_names
from mengzi_mt.tasks.rows import DataSource, available_splits, load_rows
from mengzi_mt.tasks.task import Task

FEW = ("tnews", "ocnli", "eprstmt", "csl")
"""The tasks of the first table: three templates each."""
REPEATS = 20
"""Times that a fast renderer goes over the rows within a round."""
_DRAWS = re.compile(r"\|\s*(choice|random|highlight)\b")


@dataclass(frozen=True)
class Case:
    """One template in the three renderers' forms, and the rows it renders."""

    template: Template
    compat: PromptsourceTemplate
    reference: Any
    rows: tuple[Mapping[str, Any], ...]


def task_cases(task: Task, loader: type, rows: int, templates: int | None = None) -> Iterator[Case]:
    """The first templates of a task with as many labelled rows as asked for, repeated where the sample has fewer."""
    bound = bound_templates(task)
    theirs = yaml.load(dump_templates(TemplateSet(bound.task, bound.templates)), Loader=loader)["templates"]
    optional: dict[str, Any] = {key: "" for key, spec in task.fields.items() if spec.optional}
    source = DataSource("sample")
    sample = [row for split in available_splits(task, source) for row in load_rows(task, split, source)]
    labelled = [row for row in sample if not task.gold_fields or task.gold_fields & set(row.values)]
    chosen = [template for template in bound if not _DRAWS.search(template.jinja + (template.answer_choices or ""))]
    for template in chosen[:templates]:
        fitting = [{**optional, **row.values} for row in labelled if usable(template, row)]
        if fitting:
            yield Case(template, PromptsourceTemplate(template), theirs[template.id], tuple(islice(cycle(fitting), rows)))


def check_equal(cases: list[Case]) -> None:
    """See that all three give the same text; this also compiles our templates."""
    for case in cases:
        for row in case.rows:
            expected = case.reference.apply(row, truncate=False), case.reference.get_answer_choices_list(row)
            ours = case.template.render(row)
            compat = case.compat.apply(row, truncate=False), case.compat.get_answer_choices_list(row)
            strict = [ours.inputs, ours.targets], list(ours.choices) if ours.choices is not None else None
            if not strict == expected == compat:
                raise SystemExit(f"different text: {case.template.place}: {strict} {expected} {compat}")


def run_reference(cases: list[Case]) -> None:
    """promptsource: input, target and choices."""
    for case in cases:
        for row in case.rows:
            case.reference.apply(row, truncate=False)
            case.reference.get_answer_choices_list(row)


def run_strict(cases: list[Case]) -> None:
    """Ours: input, target and choices, and the spans that may be cut."""
    for case in cases:
        render = case.template.render
        for row in case.rows:
            render(row)


def run_compat(cases: list[Case]) -> None:
    """Our compatibility mode: input, target and choices."""
    for case in cases:
        for row in case.rows:
            case.compat.apply(row, truncate=False)
            case.compat.get_answer_choices_list(row)


RENDERERS: dict[str, tuple[Callable[[list[Case]], None], int]] = {
    "promptsource 0.2.3": (run_reference, 1),
    "ours, strict": (run_strict, REPEATS),
    "ours, promptsource's way": (run_compat, 3),
}


def measure(cases: list[Case], rounds: int) -> dict[str, Any]:
    """Examples a second and ratios to promptsource: quartiles over the rounds."""
    check_equal(cases)
    examples = sum(len(case.rows) for case in cases)
    rates: dict[str, list[float]] = {name: [] for name in RENDERERS}
    for _ in range(rounds):
        for name, (run, repeats) in RENDERERS.items():
            start = time.process_time()
            for _ in range(repeats):
                run(cases)
            rates[name].append(examples * repeats / (time.process_time() - start))
    base = rates["promptsource 0.2.3"]
    return {
        "templates": len(cases),
        "examples": examples,
        "rounds": rounds,
        "renderers": {
            name: {
                "examples a second": quartiles(rate),
                "times promptsource": quartiles([a / b for a, b in zip(rate, base, strict=True)]),
            }
            for name, rate in rates.items()
        },
    }


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def print_result(title: str, result: dict[str, Any]) -> None:
    """One table."""
    print(f"{title}: {result['templates']} templates, {result['examples']:,} examples, {result['rounds']} rounds")
    print(f"  {'renderer':<26}{'examples/s [quartiles]':>34}{'x promptsource [quartiles]':>34}")
    for name, figures in result["renderers"].items():
        low, middle, high = figures["examples a second"]
        least, ratio, most = figures["times promptsource"]
        rate = f"{middle:,.0f} [{low:,.0f}–{high:,.0f}]"
        print(f"  {name:<26}{rate:>34}{f'{ratio:,.1f} [{least:,.1f}–{most:,.1f}]':>34}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    loader = reference_loader(import_reference())
    few = [case for name in FEW for case in task_cases(get_task(name), loader, rows=100, templates=3)]
    every = [case for name in task_names() for case in task_cases(get_task(name), loader, rows=2)]
    results = {
        f"{', '.join(FEW)}, three templates each, 100 rows": measure(few, options.rounds),
        "every shipped template, two rows": measure(every, options.rounds),
    }
    if options.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
        return
    for title, result in results.items():
        print_result(title, result)


if __name__ == "__main__":
    main()
