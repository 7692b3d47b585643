"""Generation speed on a CPU beside transformers' ``generate``.

``python -m benchmarks.generation_speed [--data-dir DATA] [--rounds 3] [--rows 64] [--new-tokens 32] [--beams 1] [--json]``

One thread, processor time, every round other inputs and all of these on them; ratios are formed within a round:

- one text at a time (what mengzi-zero-shot does), on a few of the inputs;
- ``generate`` with batches of 32, sorted by length;
- ours, float32 and bfloat16, from the text on and back to text (the others get token ids and give token ids).

Two cases. *Fixed*: T5-small's shape with random weights, inputs of FewCLUE's dev_few_all (the bundled samples without
``--data-dir``) through templates, so many new tokens each. *Trained*: ``models/mengzi-mt-mini`` on open templates of the bundled
samples, where answers end by themselves at different lengths. In float32 all must write the same texts.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks.eval_speed import TASKS, VOCABULARY, real_examples, timed
from mengzi_mt.data.examples import TextExample, bound_templates, render_rows, select_templates
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.models.t5 import build_model, load_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.memory import keep_freed_memory

MAX_INPUT = 512
BATCH = 32
INPUT_TASKS = ("tnews", "csldcp", "ocnli", "chid")
OPEN_TASKS = ("advertisegen", "cmrc2018", "couplets", "csl_title", "cluener2020", "translation_cmn", "kdconv", "medical_dialogue")
ALONE = 6
"""Inputs a round that are generated one at a time."""

Outputs = list[list[int]]


def fixed_examples(data_dir: Path | None, number: int) -> list[TextExample]:
    """Inputs of real length mix, shuffled."""
    examples: list[TextExample] = []
    for name in INPUT_TASKS:
        template, share = TASKS[name][0], -(-number // len(INPUT_TASKS))
        if data_dir:
            examples += real_examples(name, template, data_dir, share)
            continue
        task = get_task(name)
        rows = load_rows(task, "validation", DataSource("sample")).rows
        rendered = list(render_rows(task, bound_templates(task)[template], rows))
        examples += [rendered[place % len(rendered)] for place in range(share)]
    random.Random(0).shuffle(examples)
    return examples[:number]


def open_examples(number: int) -> list[TextExample]:
    """Rows of the bundled samples through open templates, shuffled."""
    examples: list[TextExample] = []
    for name in OPEN_TASKS:
        task = get_task(name)
        rows = load_rows(task, "validation", DataSource("sample")).rows
        for template in [one for one in select_templates(task, None, for_evaluation=True) if not one.answer_choices][:2]:
            examples += render_rows(task, template, rows)
    random.Random(0).shuffle(examples)
    return examples[:number]


@torch.inference_mode()
def peer(model: Any, inputs: Sequence[list[int]], batch: int, steps: int, beams: int) -> Outputs:
    """``generate`` over padded batches sorted by length; in the order of the inputs."""
    outputs: Outputs = [[] for _ in inputs]
    order = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
    for at in range(0, len(order), batch):
        places = order[at : at + batch]
        longest = max(len(inputs[place]) for place in places)
        ids = torch.tensor([inputs[place] + [0] * (longest - len(inputs[place])) for place in places])
        mask = torch.tensor([[1] * len(inputs[place]) + [0] * (longest - len(inputs[place])) for place in places])
        found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, num_beams=beams)
        for place, tokens in zip(places, found.tolist(), strict=True):
            outputs[place] = tokens
    return outputs


def measure(model: Any, examples: Sequence[TextExample], rounds: int, steps: int, beams: int) -> list[dict[str, Any]]:
    """All ways on the examples of each round. Raises where float32 ways write other texts."""
    tokenizer = load_tokenizer(resolve("models/mengzi-mt-mini"))
    encoder = Encoder(tokenizer)
    settings = {"max_input": MAX_INPUT, "max_new_tokens": steps, "beams": beams}
    generators = {name: Generator(model, tokenizer, precision=name, **settings) for name in ("float32", "bfloat16")}
    size = len(examples) // rounds
    seconds: dict[str, list[float]] = {}
    same: dict[str, int] = {}
    lengths: list[int] = []
    for generator in generators.values():
        generator.generate(examples[:2])
    for number in range(rounds):
        part = examples[number * size : (number + 1) * size]
        ids = [encoder.inputs(example, MAX_INPUT)[0] for example in part]
        answers = {}
        for name, generator in generators.items():
            spent, answers[name] = timed(generator.generate, part)
            seconds.setdefault(f"ours, {name}", []).append(spent / size)
        lengths += [answer.tokens for answer in answers["float32"]]
        ways: dict[str, tuple[Callable[[Any], Outputs], int]] = {
            f"transformers, batches of {BATCH}": (lambda inputs: peer(model, inputs, BATCH, steps, beams), size),
            "transformers, one by one": (lambda inputs: peer(model, inputs, 1, steps, beams), min(ALONE, size)),
        }
        expected = [answer.text for answer in answers["float32"]]
        for name, (way, taken) in ways.items():
            spent, outputs = timed(way, ids[:taken])
            seconds.setdefault(name, []).append(spent / taken)
            texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in outputs]
            if texts != expected[:taken]:
                other = next(place for place in range(taken) if texts[place] != expected[place])
                raise SystemExit(f"{name} writes {texts[other]!r} where ours writes {expected[other]!r}")
        rounded = sum(a.text == b.text for a, b in zip(answers["float32"], answers["bfloat16"], strict=True))
        same["ours, bfloat16"] = same.get("ours, bfloat16", 0) + rounded
    batched = seconds[f"transformers, batches of {BATCH}"]
    lines = []
    for name, spent in seconds.items():
        ratios = [slow / fast for slow, fast in zip(batched, spent, strict=True)]
        lines.append(
            {
                "way": name, "inputs_per_second": 1 / statistics.median(spent), "times_batches": statistics.median(ratios),
                "range": [min(ratios), max(ratios)], "same_texts": same.get(name, size * rounds) / (size * rounds),
                "rounds": rounds, "rows": size, "new_tokens": statistics.mean(lengths), "beams": beams,
            }
        )  # fmt: skip
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("MENGZI_MT_DATA")
    parser.add_argument("--data-dir", type=Path, default=data, help="folder of real files ($MENGZI_MT_DATA)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="inputs a round")
    parser.add_argument("--new-tokens", type=int, default=32, help="of the fixed case; at most twice as many of the trained one")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--cases", default="fixed,trained")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    keep_freed_memory()
    number = options.rows * options.rounds
    result: dict[str, Any] = {}
    for case in options.cases.split(","):
        if case == "fixed":
            model, steps = build_model("small", VOCABULARY, 0.0, 0).eval(), options.new_tokens
            examples = fixed_examples(options.data_dir, number)
        else:
            model, steps = load_model(resolve("models/mengzi-mt-mini")).eval(), 2 * options.new_tokens
            examples = open_examples(number)
        result[case] = measure(model, examples, options.rounds, steps, options.beams)
        if not options.json:
            show(case, result[case])
    if options.json:
        print(json.dumps(result, indent=1))


def show(case: str, lines: Sequence[dict[str, Any]]) -> None:
    """One case for reading."""
    first = lines[0]
    print(
        f"{case}: {first['rounds']} rounds of {first['rows']} inputs, {first['new_tokens']:.1f} new tokens, {first['beams']} beams"
    )
    for line in lines:
        times = f"{line['times_batches']:5.2f} [{line['range'][0]:.2f}–{line['range'][1]:.2f}] × batches of {BATCH}"
        print(
            f"  {line['way']:28s} {line['inputs_per_second']:8.2f} inputs/s  {times}  same texts {line['same_texts']:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
