"""Loss after the same tokens: this trainer beside Hugging Face's Seq2SeqTrainer, which differ in what a batch holds.

``python -m benchmarks.train_loss --data-dir DATA [--init models/mengzi-mt-mini] [--examples 1440] [--seeds 1] [--json]``

All begin from the same weights and go once through the same examples of the real mixture, so they end after the same tokens.
All have the same AdamW, the same clipping, a learning rate that is the same function of the tokens seen, optimiser steps of 48
examples, and a loss per target token. They differ in order: mixed at random, or grouped by length. Held-out rows of every task
are scored by one function, a plain forward pass of transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainerCallback

from benchmarks.trainers import PEERS, STEP, TOKENIZER, Measured, full_recipe, hugging_face, ours, public_extracts, quiet, tokenised
from mengzi_mt.config import OptimiserSettings, Recipe
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.models.t5 import load_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.memory import keep_freed_memory
from mengzi_mt.training.optimisers import make_optimiser
from mengzi_mt.training.setup import read_mixture, training_templates, validation_examples

OURS = "ours, mixed tasks"
WARMUP = 0.1
"""Share of the tokens over which the learning rate rises; from there it falls to 0 in a straight line."""

Scores = dict[str, float]


def held_out(recipe: Recipe, source: DataSource, rows: int) -> list[TokenizedExample]:
    """Some validation rows of every task."""
    encoder = Encoder(load_tokenizer(resolve(TOKENIZER)))
    found = []
    for name in recipe.mixture.tasks:
        task = get_task(name)
        examples = validation_examples(task, load_rows(task, "validation", source), training_templates(task, recipe), rows)
        limits = Limits(recipe.lengths.max_input, recipe.lengths.max_target)
        found += [example for example in encoder.examples(examples, limits) if example is not None]
    return found


@torch.no_grad()
def score(model: Any, examples: Sequence[TokenizedExample], size: int = 16) -> Scores:
    """Losses of the held-out examples: mean over tasks of the mean over examples, mean over examples, mean over target tokens.

    An example's loss is the mean over its target tokens.
    """
    model.eval()
    losses: dict[str, list[float]] = {}
    total = tokens = 0.0
    ordered = sorted(examples, key=lambda e: len(e.inputs))
    for first in range(0, len(ordered), size):
        part = ordered[first : first + size]
        inputs, labels = (
            torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in side], batch_first=True, padding_value=pad)
            for side, pad in (([e.inputs for e in part], -1), ([e.targets for e in part], -100))
        )
        mask = (inputs >= 0).long()
        logits = model(input_ids=inputs.clamp(min=0), attention_mask=mask, labels=labels).logits
        each = functional.cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=-100, reduction="none")
        for example, row in zip(part, each, strict=True):
            loss = float(row.sum())
            losses.setdefault(example.task, []).append(loss / len(example.targets))
            total, tokens = total + loss, tokens + len(example.targets)
    return {
        "mean over tasks": statistics.mean(statistics.mean(values) for values in losses.values()),
        "mean over examples": statistics.mean(value for values in losses.values() for value in values),
        "mean over tokens": total / tokens,
    }


def factor(seen: int, whole: int) -> float:
    """The learning rate as a share of the highest after ``seen`` of ``whole`` tokens."""
    done = seen / whole
    return max(1e-3, done / WARMUP) if done < WARMUP else max(0.0, (1 - done) / (1 - WARMUP))


class _Halfway(TrainerCallback):
    """Scores once at half the tokens."""

    def __init__(self, at: Callable[[], None]) -> None:
        self.at = at

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After every step."""
        self.at()


def run(
    name: str, init: str, examples: Sequence[TokenizedExample], checked: Sequence[TokenizedExample], rate: float, seed: int
) -> Any:
    """One trainer once through the examples: its scores at half the tokens and at the end, and what it did."""
    model, tokenizer = load_model(resolve(init), dropout=0.1), load_tokenizer(resolve(TOKENIZER))
    optimiser = make_optimiser(model, OptimiserSettings(name="adamw", learning_rate=rate))
    whole = sum(len(e.inputs) + len(e.targets) for e in examples)
    done, halves = Measured(), []
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: factor(done.tokens, whole))

    def halfway() -> None:
        if not halves and done.tokens >= whole / 2:
            halves.append(score(model, checked))
            model.train()

    torch.manual_seed(seed)
    if name == OURS:

        def after() -> None:
            schedule.step()
            halfway()

        parts = [examples[n : n + STEP] for n in range(0, len(examples), STEP)]
        ours(model, parts, optimiser, measured=done, after=after)
    else:
        steps = len(examples) // STEP
        hugging_face(
            model, tokenizer, examples, PEERS[name], steps, seed,
            optimisers=(optimiser, schedule), measured=done, callbacks=[_Halfway(halfway)],
        )  # fmt: skip
    assert done.tokens == whole, (name, done.tokens, whole)
    return halves[0], score(model, checked), done


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("MENGZI_MT_DATA"))
    parser.add_argument("--init", default="models/mengzi-mt-mini", help="a checkpoint with the tokenizer of models/mengzi-mt-mini")
    parser.add_argument("--examples", type=int, default=1_440, help="that all train on, a multiple of 48")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--rows", type=int, default=8, help="held-out rows a task")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.data_dir is None or options.examples % STEP:
        parser.error(f"--data-dir is needed, and --examples as a multiple of {STEP}")
    quiet()
    keep_freed_memory()
    recipe, source = full_recipe(), public_extracts(Path(options.data_dir))
    checked = held_out(recipe, source, options.rows)
    mixture = read_mixture(recipe, source)
    start = score(load_model(resolve(options.init)), checked)
    results: dict[str, list[Any]] = {}
    for seed in range(options.seeds):
        examples = tokenised(mixture, recipe, options.examples, first=seed * 2 * options.examples)
        for name in (OURS, *PEERS):
            half, end, done = run(name, options.init, examples, checked, options.rate, seed)
            results.setdefault(name, []).append({"half": half, "end": end, "tokens": done.tokens, "seconds": done.seconds})
            print(f"seed {seed}: {name}: {end}, {done.seconds:,.0f} s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"start": start, "runs": results}, indent=1))
        return
    tokens = statistics.mean(one["tokens"] for runs in results.values() for one in runs)
    counts = f"{options.examples:,} examples, {tokens:,.0f} tokens, {len(checked)} held-out examples, {options.seeds} seeds"
    print(f"\n{options.init}, {counts}\n")
    print("| loss | " + " | ".join(start) + " | at half the tokens, mean over tasks | processor seconds |")
    print("| --- |" + " --- |" * (len(start) + 2))
    print("| before | " + " | ".join(f"{value:.4f}" for value in start.values()) + " | | |")
    for name, runs in results.items():
        ends = [statistics.mean(one["end"][key] for one in runs) for key in start]
        half = statistics.mean(one["half"]["mean over tasks"] for one in runs)
        seconds = statistics.mean(one["seconds"] for one in runs)
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in ends) + f" | {half:.4f} | {seconds:,.0f} |")


if __name__ == "__main__":
    main()
