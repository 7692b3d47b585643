"""How full packed rows get on the mixture of all training tasks, beside seqio's rule and padded batches, and how fast.

``python -m benchmarks.packing_fill --data-dir DATA [--data-map public-extracts] [--json]``. The examples are those that training
draws: examples-proportional over every training task, positions from 0 on. seqio's rule (``trim_and_pack_dataset``: examples in
their order, a row is closed by the first that overflows it on either side) packs the whole stream, across steps, with the
decoder length that suits it best. Seconds are this process's processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mengzi_mt.config import Recipe
from mengzi_mt.data.packing import RowLength, pack_lengths
from mengzi_mt.data.row_lengths import measure_fill, token_lengths
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import all_tasks
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.setup import read_mixture

MAX_INPUT, MAX_TARGET = 512, 128
STEPS = (64, 128, 256, 512, 1_024)
ROWS: dict[str, tuple[RowLength, ...]] = {
    "512, one": ((512, 128),),
    "512, five": ((128, 16), (512, 32), (512, 48), (512, 80), (512, 144)),
    "512, seven (default)": ((128, 16), (512, 16), (512, 32), (512, 48), (512, 64), (512, 96), (512, 160)),
    "1024, eight": ((128, 16), (256, 32), (512, 64), (1024, 64), (1024, 80), (1024, 96), (1024, 128), (1024, 224)),
    "2048, seven": ((256, 32), (512, 64), (1024, 96), (2048, 128), (2048, 192), (2048, 256), (2048, 320)),
}


def mixture_lengths(source: DataSource, tokenizer: str, examples: int) -> tuple[list[int], list[int], int]:
    """Input and target tokens of the mixture's first examples, and the number of its tasks."""
    tasks = [task.name for task in all_tasks() if task.role == "train"]
    recipe = Recipe.model_validate(
        {"name": "fill", "model": {"shape": "small", "tokenizer": tokenizer}, "mixture": {"tasks": tasks}, "training": {"steps": 1}}
    )
    encoder = Encoder(load_tokenizer(resolve(tokenizer)))
    mixture = read_mixture(recipe, source)
    return *token_lengths(mixture.examples(0, examples), encoder, Limits(MAX_INPUT, MAX_TARGET)), len(tasks)


def first_overflow(inputs: Sequence[int], targets: Sequence[int], row: RowLength) -> float:
    """Share of slots that hold tokens by seqio's rule; what would be trimmed does not occur within the limits."""
    rows, left_in, left_out = 0, 0, 0
    for source, target in zip(inputs, targets, strict=True):
        if source > left_in or target > left_out:
            rows, left_in, left_out = rows + 1, *row
        left_in, left_out = left_in - source, left_out - target
    return (sum(inputs) + sum(targets)) / (rows * sum(row))


def padded(inputs: Sequence[int], targets: Sequence[int], batch: int) -> float:
    """Share of slots that hold tokens in random batches, each padded to its longest input and target."""
    slots = 0
    for start in range(0, len(inputs), batch):
        group = inputs[start : start + batch], targets[start : start + batch]
        slots += len(group[0]) * (max(group[0]) + max(group[1]))
    return (sum(inputs) + sum(targets)) / slots


def speed(inputs: Sequence[int], targets: Sequence[int], rows: Sequence[RowLength], step: int) -> float:
    """Examples packed a second, the best of three rounds."""
    seconds = []
    for _ in range(3):
        began = time.process_time()
        for start in range(0, len(inputs), step):
            pack_lengths(inputs[start : start + step], targets[start : start + step], rows)
        seconds.append(time.process_time() - began)
    return len(inputs) / min(seconds)


def measure(inputs: list[int], targets: list[int]) -> list[dict[str, Any]]:
    """All the table's lines."""
    lines: list[dict[str, Any]] = [
        {"rule": f"padded, random batches of {batch}", "both": padded(inputs, targets, batch)} for batch in (16, 64)
    ]
    for encoder in (512, 1_024, 2_048):
        choices = [(encoder, decoder) for decoder in range(MAX_TARGET, MAX_TARGET + encoder // 4, 16)]
        row = max(choices, key=lambda choice: first_overflow(inputs, targets, choice))
        lines.append({"rule": f"first overflow (seqio), rows {row[0]} + {row[1]}", "both": first_overflow(inputs, targets, row)})
    for name, rows in ROWS.items():
        for step in STEPS:
            fill = measure_fill(inputs, targets, rows, step)
            lines.append({"rule": f"best fit, {name}", **vars(fill), "examples_per_second": speed(inputs, targets, rows, step)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--data-map", default="public-extracts")
    parser.add_argument("--tokenizer", default="models/mengzi-mt-mini")
    parser.add_argument("--examples", type=int, default=32_768)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data_map = load_data_map(Path(args.data_map))
    source = DataSource("files", args.data_dir, data_map) if args.data_dir else DataSource("sample")
    inputs, targets, tasks = mixture_lengths(source, args.tokenizer, args.examples)
    lines = measure(inputs, targets)
    if args.json:
        print(json.dumps(lines, indent=1))
        return
    means = f"{sum(inputs) / len(inputs):.1f} input and {sum(targets) / len(targets):.1f} target tokens"
    print(f"{len(inputs):,} examples of {tasks} tasks, on average {means}\n")
    print("| rule | step | both sides | encoder | decoder | rows a step | lengths a step | examples/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        if "step" not in line:
            print(f"| {line['rule']} | | {line['both']:.1%} | | | | | |")
            continue
        print(
            f"| {line['rule']} | {line['step']} | {line['both']:.1%} | {line['encoder']:.1%} | {line['decoder']:.1%} | "
            f"{line['rows_per_step']:.1f} | {line['lengths_per_step']:.1f} | {line['examples_per_second']:,.0f} |"
        )


if __name__ == "__main__":
    main()
