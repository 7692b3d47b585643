"""Scoring speed on a CPU: trees of choices beside the ways that encode an input again for every choice.

``python -m benchmarks.eval_speed --data-dir DATA [--tasks tnews,ocnli] [--rounds 3] [--scale 1] [--json]``

Real rows of FewCLUE's dev_few_all, T5-small's shape with random weights, one thread, processor time. Every round takes other
rows and runs all of these on them; ratios are formed within a round:

- lm-evaluation-harness's seq2seq path (``HFLM._loglikelihood_tokens``), sorted by length as it does, at the best of three batch
  sizes; left out where lm_eval cannot be imported (``pip install lm_eval==0.4.13``);
- t-zero's way: a plain forward pass over every (input, choice) pair, padded, a log-softmax over the whole vocabulary. It gets
  examples of like length together, which t-zero does not do;
- ours, float32 and bfloat16, from the text on (the others get token ids).

All score the same token ids in the same convention (end-of-sequence after the input and after the choice, plain sum), and must
choose the same answers. lm-eval calls ``tie_weights()`` on load, which replaces T5 v1.1's own head; it is put back here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import nn

from mengzi_mt.data.examples import TextExample, bound_templates, render_rows
from mengzi_mt.evaluation.scoring import ChoiceScorer
from mengzi_mt.models.t5 import build_model, load_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.memory import keep_freed_memory

VOCABULARY = 32_128
MAX_INPUT = 512
SEQUENCES = 64
"""Pairs of a forward pass of t-zero's way (always at least one example)."""
TASKS = {
    "tnews": ("recommend_channel", 8, 11.0),
    "csldcp": ("cloze_field_of_paper", 4, 28.0),
    "iflytek": ("shelf_question", 3, 55.0),
    "chid": ("choose_for_blank", 10, 6.0),
    "ocnli": ("relation_listed", 24, 3.3),
}
"""Template, rows a round, and how many times faster than the others float32 is meant to be."""

Ids = tuple[list[int], list[list[int]]]
"""Input and choices of one example, with end-of-sequence."""
Scores = list[list[float]]


@dataclass
class Measured:
    """One way of scoring one task: seconds of processor time and scores of every round."""

    seconds: list[float] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)


def real_examples(task_name: str, template: str, data_dir: Path, number: int) -> list[TextExample]:
    """Rows of dev_few_all, drawn without looking at their length."""
    task = get_task(task_name)
    rows = load_rows(task, "dev_few_all", DataSource("files", data_dir)).rows
    examples = list(render_rows(task, bound_templates(task)[template], rows))
    return random.Random(0).sample(examples, min(number, len(examples)))


@torch.no_grad()
def pair_by_pair(model: Any, examples: Sequence[Ids]) -> Scores:
    """t-zero's way (``EncoderDecoderModel.forward`` of t0/model.py): the input once for each choice, everything padded."""
    results: Scores = [[] for _ in examples]
    order = sorted(range(len(examples)), key=lambda place: len(examples[place][0]))
    size = max(1, SEQUENCES // len(examples[0][1]))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        pairs = [(examples[place][0], choice) for place in places for choice in examples[place][1]]
        inputs = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in pairs], batch_first=True)
        labels = nn.utils.rnn.pad_sequence([torch.tensor(ids) for _, ids in pairs], batch_first=True)
        counted = nn.utils.rnn.pad_sequence([torch.ones(len(ids), dtype=torch.long) for _, ids in pairs], batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(ids), dtype=torch.long) for ids, _ in pairs], batch_first=True)
        logits = model(input_ids=inputs, attention_mask=mask, labels=labels).logits
        log_p = counted[:, :, None] * torch.log_softmax(logits, dim=-1)
        sums = log_p.gather(2, labels[:, :, None])[:, :, 0].sum(dim=1).tolist()
        for place in places:
            count = len(examples[place][1])
            results[place], sums = sums[:count], sums[count:]
    return results


def harness(model: Any, tokenizer: Any, batch_size: int) -> Callable[[Sequence[Ids]], Scores] | None:
    """lm-eval's seq2seq path with the model's own head, or None where it is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    head = model.lm_head.weight
    lm = HFLM(pretrained=model, backend="seq2seq", tokenizer=tokenizer, batch_size=batch_size, max_length=MAX_INPUT, device="cpu")
    model.lm_head.weight = head

    def score(examples: Sequence[Ids]) -> Scores:
        pairs = [(("", ""), inputs, choice) for inputs, choices in examples for choice in choices]
        flat = [result for result, _ in lm._loglikelihood_tokens(pairs, disable_tqdm=True)]
        taken = iter(flat)
        return [[next(taken) for _ in choices] for _, choices in examples]

    return score


def best_harness(model: Any, tokenizer: Any, examples: Sequence[Ids]) -> tuple[Callable[[Sequence[Ids]], Scores] | None, int]:
    """lm-eval at the batch size at which it is fastest on these examples."""
    found: list[tuple[float, int, Callable[[Sequence[Ids]], Scores]]] = []
    for size in (8, 32, 64):
        score = harness(model, tokenizer, size)
        if score is None:
            return None, 0
        found.append((timed(score, examples)[0], size, score))
    _, size, score = min(found, key=lambda one: one[0])
    return score, size


def timed(score: Callable[[Any], Any], examples: Any) -> tuple[float, Any]:
    """Processor seconds, and the result."""
    began = time.process_time()
    result = score(examples)
    return time.process_time() - began, result


def ours(scorer: ChoiceScorer, examples: Sequence[TextExample]) -> Scores:
    """The scores of the product."""
    return [list(one.log_probabilities) for one in scorer.score(examples)]


def best(scores: Sequence[float]) -> int:
    """The first of the highest."""
    return max(range(len(scores)), key=scores.__getitem__)


def differences(first: Scores, second: Scores) -> tuple[float, int]:
    """The largest difference of log-probability, and how many examples get another answer."""
    gap = max(abs(a - b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True))
    return gap, sum(best(one) != best(other) for one, other in zip(first, second, strict=True))


def measure(
    task: str, ways: dict[str, Callable[[Any], Scores]], examples: Sequence[TextExample], ids: Sequence[Ids], rounds: int
) -> Any:
    """All ways on one task, interleaved. Raises where float32 ways disagree on an answer."""
    size = len(examples) // rounds
    done = {name: Measured() for name in ways}
    for number in range(rounds):
        part = slice(number * size, (number + 1) * size)
        for name, score in ways.items():
            seconds, scores = timed(score, examples[part] if name.startswith("ours") else ids[part])
            done[name].seconds.append(seconds)
            done[name].scores.append(scores)
    reference = [scores for part in done["ours, float32"].scores for scores in part]
    lines = []
    for name, one in done.items():
        gap, others = differences(reference, [scores for part in one.scores for scores in part])
        if others and "bfloat16" not in name:
            raise SystemExit(
                f"{task}: {name} chooses other answers in {others} of {len(reference)} examples (log p differs by {gap})"
            )
        ratios = [slow / fast for slow, fast in zip(one.seconds, done["ours, float32"].seconds, strict=True)]
        lines.append(
            {
                "task": task, "way": name, "rows": size * rounds, "rounds": rounds,
                "choices": len(ids[0][1]), "input_tokens": statistics.mean(len(inputs) for inputs, _ in ids),
                "examples_per_second": size / statistics.median(one.seconds),
                "ours_times": statistics.median(ratios), "range": [min(ratios), max(ratios)],
                "log_p_difference": gap, "other_answers": others,
            }
        )  # fmt: skip
    return lines


def agreement(data_dir: Path, tasks: Sequence[str], rows: int) -> list[dict[str, Any]]:
    """bfloat16 against float32 with the trained model of the repository."""
    place = resolve("models/mengzi-mt-mini")
    model, tokenizer = load_model(place), load_tokenizer(place)
    lines = []
    for task in tasks:
        examples = real_examples(task, TASKS[task][0], data_dir, rows)
        exact, rounded = (ours(ChoiceScorer(model, tokenizer, precision=p), examples) for p in ("float32", "bfloat16"))
        gap, others = differences(exact, rounded)
        lines.append({"task": task, "rows": len(examples), "log_p_difference": gap, "same_answer": 1 - others / len(examples)})
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("MENGZI_MT_DATA")
    parser.add_argument("--data-dir", type=Path, default=data, required=not data, help="folder of real files ($MENGZI_MT_DATA)")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of rows a round")
    parser.add_argument("--agreement-rows", type=int, default=100, help="rows a task for bfloat16 with the trained model")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    keep_freed_memory()
    tokenizer = load_tokenizer(resolve("models/mengzi-mt-mini"))
    model = build_model("small", VOCABULARY, 0.0, 0).eval()
    exact, rounded = (ChoiceScorer(model, tokenizer, max_input=MAX_INPUT, precision=p) for p in ("float32", "bfloat16"))
    table = []
    for task in options.tasks.split(","):
        template, rows, target = TASKS[task]
        size = max(1, round(rows * options.scale))
        examples = real_examples(task, template, options.data_dir, size * options.rounds)
        encoder = exact.encoder
        ids = [(encoder.inputs(e, MAX_INPUT)[0], [encoder.target(choice) for choice in e.choices or ()]) for e in examples]
        few = max(1, 60 // len(ids[0][1]))
        lm_eval, batch_size = best_harness(model, tokenizer, ids[:few])
        ways: dict[str, Callable[[Any], Scores]] = {
            "t-zero's way": lambda part: pair_by_pair(model, part),
            "ours, float32": lambda part: ours(exact, part),
            "ours, bfloat16": lambda part: ours(rounded, part),
        }
        if lm_eval:
            ways = {f"lm-eval, batches of {batch_size}": lm_eval, **ways}
        for name in ("ours, float32", "ours, bfloat16"):
            ways[name](examples[:1])
        lines = measure(task, ways, examples, ids, options.rounds)
        table += lines
        if not options.json:
            show(lines, target)
    trained = agreement(options.data_dir, options.tasks.split(","), options.agreement_rows) if options.agreement_rows else []
    if options.json:
        print(json.dumps({"speed": table, "bfloat16_of_the_trained_model": trained}, indent=1))
        return
    if not any(line["way"].startswith("lm-eval") for line in table):
        print("lm_eval is not installed: only the plain forward pass for each choice was measured beside ours")
    for line in trained:
        print(
            f"models/mengzi-mt-mini, {line['task']}: bfloat16 moves log p by at most {line['log_p_difference']:.3f}, "
            f"{line['same_answer']:.1%} of {line['rows']} answers are the same"
        )


def show(lines: Sequence[dict[str, Any]], target: float) -> None:
    """One task for reading."""
    first = lines[0]
    print(
        f"{first['task']}: {first['choices']} choices, {first['input_tokens']:.0f} input tokens, "
        f"{first['rounds']} rounds of {first['rows'] // first['rounds']} rows; target {target:g} times"
    )
    for line in lines:
        times = f"ours is {line['ours_times']:6.2f} times as fast [{line['range'][0]:.2f}–{line['range'][1]:.2f}]"
        if line["way"] == "ours, bfloat16":
            times = f"{1 / line['ours_times']:6.2f} times ours in float32; other answers: {line['other_answers']}"
        if line["way"] == "ours, float32":
            times = ""
        speed = f"{line['examples_per_second']:9.3f} examples/s"
        print(f"  {line['way']:24s} {speed}  max |Δ log p| {line['log_p_difference']:.1e}  {times}", flush=True)


if __name__ == "__main__":
    main()
