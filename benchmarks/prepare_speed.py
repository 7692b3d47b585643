"""How fast examples are prepared beside ``datasets.map``, on the same rows: rendered, tokenised and packed.

``python -m benchmarks.prepare_speed [--data-dir DIR --data-map NAME] [--tokenizer FOLDER] [--rows 40] [--rounds 5]``.

Both render every row through every template that can use it, tokenise both sides with the same limits, and pack the
examples by this project's packer (steps of 128 examples). ``datasets.map`` has templates that Jinja compiled once and the fast
tokenizer, in batches of 1,000; an example that is too long is cut at the right there (it has no shrinkable fields). One process,
one thread, its processor time; every round runs each once, and ratios are formed within a round. The ids are compared first,
and templates that the two sides do not render to the same text (ours knows optional fields) are left out on both.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
from jinja2.sandbox import SandboxedEnvironment

from mengzi_mt.config import LengthSettings
from mengzi_mt.data.examples import render_example, select_templates
from mengzi_mt.data.mixture import Mixture, make_pool
from mengzi_mt.data.packing import pack
from mengzi_mt.data.shards import tokenised
from mengzi_mt.data.stream import OnTheFly
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.errors import MengziError
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.prompts.template import Template
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import all_tasks
from mengzi_mt.tasks.rows import DataSource, Row, load_rows
from mengzi_mt.tasks.task import Task

LENGTHS = LengthSettings()
LIMITS = Limits(LENGTHS.max_input, LENGTHS.max_target)
STEP = 128


@dataclass(frozen=True)
class Case:
    """Rows of a task, and those of its templates that skip none of them and render alike on both sides."""

    task: Task
    rows: tuple[Row, ...]
    values: tuple[dict[str, Any], ...]
    templates: tuple[Template, ...]
    halves: tuple[tuple[Any, Any, list[str] | None], ...]
    """Input, target (compiled by Jinja) and fixed choices."""


def make_case(task: Task, source: DataSource, rows: int) -> Case | None:
    """One task's rows and templates, or None where nothing is left."""
    env = SandboxedEnvironment()
    pool = make_pool(task, load_rows(task, "train", source, rows).rows, select_templates(task, None))
    values = tuple({**task.empty_fields, **row.values} for row in pool.rows)
    templates, halves = [], []
    for template in pool.templates:
        compiled = template.compiled
        if template.skip_if or (compiled.choices_part is not None and compiled.fixed_choices is None):
            continue
        try:
            before, after = (env.from_string(text) for text in _halves(template.jinja))
            half = (before, after, list(compiled.fixed_choices) if compiled.fixed_choices else None)
            alike = all(
                _render(half, value) == list(render_example(task, template, row)[:2])
                for row, value in zip(pool.rows, values, strict=True)
            )
        except Exception:  # a filter of ours that Jinja does not have
            continue
        if alike:
            templates.append(template)
            halves.append(half)
    return Case(task, pool.rows, values, tuple(templates), tuple(halves)) if templates else None


def _halves(jinja: str) -> list[str]:
    """Input and target; the assignments in front stand before each."""
    head = ""
    while jinja.startswith("{% set "):
        statement, _, jinja = jinja.partition("%}")
        head += statement + "%}"
    before, _, after = jinja.partition("|||")
    return [head + before, head + after]


def _render(half: tuple[Any, Any, list[str] | None], value: dict[str, Any]) -> list[str]:
    names = {**value, "answer_choices": half[2]} if half[2] is not None else value
    return [half[0].render(names).strip(), half[1].render(names).strip()]


def packed(examples: list[TokenizedExample]) -> int:
    """Pack steps of 128 examples; the number of rows."""
    return sum(len(pack(examples[start : start + STEP], LENGTHS)) for start in range(0, len(examples), STEP))


def ours(cases: list[Case], encoder: Encoder) -> int:
    """As ``mengzi-mt prepare`` renders and tokenises, then packed; the number of examples."""
    count = 0
    for case in cases:
        examples, states = tokenised(case.task, case.templates, case.rows, encoder, LIMITS)
        packed(examples)
        count += len(states)
    return count


def theirs(cases: list[tuple[Case, datasets.Dataset]], tokenizer: Any) -> int:
    """``datasets.map`` twice, to render and to tokenise, then packed; the number of examples."""
    count = 0
    for case, table in cases:

        def render(batch: dict[str, list[Any]], case: Case = case) -> dict[str, list[str]]:
            keys = list(batch)
            inputs, targets = [], []
            for columns in zip(*batch.values(), strict=True):
                value = {key: column for key, column in zip(keys, columns, strict=True) if column is not None}
                for half in case.halves:
                    source, target = _render(half, value)
                    inputs.append(source)
                    targets.append(target)
            return {"inputs": inputs, "targets": targets}

        def tokenize(batch: dict[str, list[str]]) -> dict[str, Any]:
            inputs = tokenizer(batch["inputs"], truncation=True, max_length=LIMITS.inputs, return_attention_mask=False)
            targets = tokenizer(batch["targets"], truncation=True, max_length=LIMITS.targets, return_attention_mask=False)
            return {"input_ids": inputs.input_ids, "labels": targets.input_ids}

        texts = table.map(render, batched=True, remove_columns=table.column_names, keep_in_memory=True, load_from_cache_file=False)
        tokens = texts.map(
            tokenize, batched=True, remove_columns=texts.column_names, keep_in_memory=True, load_from_cache_file=False
        )
        examples = [
            TokenizedExample(inputs, targets, 1.0, case.task.name, "", "")
            for inputs, targets in zip(tokens["input_ids"], tokens["labels"], strict=True)
        ]
        packed(examples)
        count += len(examples)
    return count


def tables(cases: list[Case]) -> Iterator[tuple[Case, datasets.Dataset]]:
    """The rows as Arrow tables; tasks whose values Arrow cannot hold as they are (mixed types) are left out on both sides."""
    for case in cases:
        try:
            table = datasets.Dataset.from_list(list(case.values))
        except Exception as error:  # whatever Arrow says of mixed types
            print(f"left out: {case.task.name}: {str(error).splitlines()[0]}")
            continue
        if table.to_list() == list(case.values):
            yield case, table
        else:
            print(f"left out: {case.task.name}: Arrow holds its rows otherwise")


def same_ids(cases: list[Case], encoder: Encoder, tokenizer: Any) -> float:
    """Share of examples, of those that are not cut, with the same ids on both sides."""
    same = total = 0
    for case in cases:
        for example in tokenised(case.task, case.templates, case.rows[:8], encoder, LIMITS)[0]:
            if example.cut:
                continue
            row = next(row for row in case.rows if row.row_id == example.row_id)
            template = next(template for template in case.templates if template.name == example.template)
            total += 1
            same += tokenizer(render_example(case.task, template, row).inputs).input_ids == example.inputs
    return same / total


def cpu_rate(work: Callable[[], int], repeats: int) -> float:
    """Examples a second of processor time."""
    gc.collect()
    began = time.process_time()
    count = sum(work() for _ in range(repeats))
    return count / (time.process_time() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--data-map", default="public-extracts")
    parser.add_argument("--tokenizer", default="models/mengzi-mt-mini")
    parser.add_argument("--rows", type=int, default=40, help="rows a task")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    source = DataSource("sample")
    if options.data_dir:
        source = DataSource("files", options.data_dir, load_data_map(Path(options.data_map)))
    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(resolve(options.tokenizer))
    encoder = Encoder(tokenizer)
    made = []
    for task in all_tasks():
        if task.role == "train":
            try:
                case = make_case(task, source, options.rows)
            except MengziError as error:
                print(f"left out: {task.name}: {error.what}")
                continue
            if case is not None:
                made.append(case)
    both = list(tables(made))
    cases = [case for case, _ in both]
    rates = dict.fromkeys((case.task.name for case in cases), 1 / len(cases))
    mixture = Mixture([make_pool(case.task, case.rows, case.templates) for case in cases], rates, 0)
    stream = OnTheFly(mixture, encoder, LIMITS)
    examples = ours(cases, encoder)

    def on_the_fly() -> int:
        for start in range(0, examples, STEP):
            pack([example for example in stream.examples(start, start + STEP) if example is not None], LENGTHS)
        return examples

    agreement = same_ids(cases, encoder, tokenizer)
    gc.collect()
    gc.freeze()
    ways: dict[str, tuple[Callable[[], int], int]] = {
        "datasets.map, Jinja once, fast tokenizer": (lambda: theirs(both, tokenizer), 1),
        "ours, prepare": (lambda: ours(cases, encoder), 3),
        "ours, on the fly at random positions": (on_the_fly, 3),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (work, repeats) in ways.items():
            found[name].append(cpu_rate(work, repeats))
    base = next(iter(found.values()))
    result = {
        "tasks": len(cases),
        "templates": sum(len(case.templates) for case in cases),
        "examples": examples,
        "rounds": options.rounds,
        "same ids": agreement,
        "examples per CPU second": {name: [min(rate), statistics.median(rate), max(rate)] for name, rate in found.items()},
        "ratio": {
            name: statistics.median(mine / other for mine, other in zip(rate, base, strict=True)) for name, rate in found.items()
        },
    }
    if options.json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    print(
        f"{result['tasks']} tasks, {result['templates']} templates, {examples:,} examples, {options.rounds} rounds; "
        f"same ids in {agreement:.2%} of inputs"
    )
    for name, rate in found.items():
        print(f"  {name:<44}{statistics.median(rate):>10,.0f} [{min(rate):,.0f}–{max(rate):,.0f}]{result['ratio'][name]:>8.1f} x")


if __name__ == "__main__":
    main()
