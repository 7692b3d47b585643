"""What the objectives beside masked language modelling cost: a step of an encoder with and without them.

``python -m benchmarks.pretrain_overhead CORPUS --tokenizer models/mengzi-mt-mini [--shapes micro mini] [--rounds 5] [--steps 2]``

CORPUS is a prepared and tagged corpus. Every round runs some optimiser steps (forward, backward, clipping, AdamW; float32, one
thread) with each set of objectives on the same windows; times are processor time divided by non-padding tokens, and ratios are
formed within a round. Making the batches is timed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import nn

from mengzi_mt.pretraining.encoder_losses import EncoderLosses, accumulate, objective_weights
from mengzi_mt.pretraining.encoder_recipe import EncoderRecipe
from mengzi_mt.pretraining.encoder_run import EncoderRun, set_up_encoder
from mengzi_mt.training.optimisers import make_optimiser

SETS: dict[str, dict[str, Any]] = {
    "mlm": {},
    "mlm, pos, ner": {"pos": 1.0, "ner": 1.0},
    "mlm, sop": {"order": "sop"},
    "mlm, nsp": {"order": "nsp"},
    "mlm, pos, ner, sop": {"pos": 1.0, "ner": 1.0, "order": "sop"},
}


def make_run(corpus: str, tokenizer: str, shape: str, objectives: dict[str, Any]) -> EncoderRun:
    return set_up_encoder(
        EncoderRecipe.model_validate(
            {
                "name": "overhead",
                "corpus": corpus,
                "model": {"shape": shape, "dropout": 0.0, "tokenizer": tokenizer},
                "objectives": {"whole_words": True, **objectives},
                "training": {"steps": 1_000, "batch": 32, "window": 128, "micro_batch_tokens": 4_096, "device": "cpu"},
            }
        )
    )


def timed(run: EncoderRun, module: EncoderLosses, optimiser: torch.optim.Optimizer, first: int, steps: int) -> tuple[float, float]:
    """Seconds of processor time a token: of the steps, and of making their batches."""
    began = time.process_time()
    batches = [run.maker(first + number) for number in range(steps)]
    made = time.process_time() - began
    weights = objective_weights(run.recipe.objectives, 0, 1_000)
    began = time.process_time()
    for batch in batches:
        accumulate(module, batch, weights, torch.device("cpu"))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    spent = time.process_time() - began
    tokens = sum(batch.tokens for batch in batches)
    return spent / tokens, made / tokens


def measure(corpus: str, tokenizer: str, shape: str, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    runs = {name: make_run(corpus, tokenizer, shape, objectives) for name, objectives in SETS.items()}
    modules = {name: EncoderLosses(run.model, run.heads).train() for name, run in runs.items()}
    optimisers = {name: make_optimiser(module, runs[name].recipe.optimiser) for name, module in modules.items()}
    for name in SETS:
        timed(runs[name], modules[name], optimisers[name], 0, 1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SETS}
    for number in range(rounds):
        names = list(SETS)
        for name in names[number % len(names) :] + names[: number % len(names)]:  # none is always first
            times[name].append(timed(runs[name], modules[name], optimisers[name], 1 + number * steps, steps))
    found = {}
    for name in SETS:
        ratios = [ours[0] / plain[0] for ours, plain in zip(times[name], times["mlm"], strict=True)]
        found[name] = {
            "tokens_per_second": 1 / statistics.median(spent for spent, _ in times[name]),
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "made_tokens_per_second": 1 / statistics.median(made for _, made in times[name]),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--shapes", nargs="+", default=["micro", "mini"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {shape: measure(options.corpus, options.tokenizer, shape, options.rounds, options.steps) for shape in options.shapes}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print("| shape | objectives | tokens/s | a step's time [range] | tokens/s of making batches |\n| --- | --- | --- | --- | --- |")
    for shape, rows in found.items():
        for name, row in rows.items():
            print(
                f"| {shape} | {name} | {row['tokens_per_second']:,.0f} | {row['ratio']:.3f} [{row['least']:.3f}–{row['most']:.3f}] "
                f"| {row['made_tokens_per_second']:,.0f} |"
            )


if __name__ == "__main__":
    main()
