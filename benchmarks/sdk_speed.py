"""The SDK's speed beside mengzi-zero-shot's way: one text a call, ``generate`` of transformers, greedy.

``python -m benchmarks.sdk_speed [--data-dir DATA] [--model models/mengzi-mt-mini] [--exports DIR …]
[--rounds 4] [--texts 512] [--json]``

The same model, prompts and texts for all ways; one thread, processor time. Each round has its own share of the texts, every way
runs on them in turn, and ratios are formed within a round.

- *labels*: headlines and reviews (tnews, eprstmt). mengzi-zero-shot writes the label; ours ranks the labels, or writes.
- *spans*: names of companies and of what a review is about, copied from the text under a constraint.
- *texts*: advertising copy, up to ``--new-tokens``.

Without ``--data-dir`` the bundled samples are used, over and over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks.eval_speed import timed
from mengzi_mt.resources import resolve
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.memory import keep_freed_memory

CASES = {
    "labels": ("news_topic", "sentiment"),
    "spans": ("comment_object", "company_names"),
    "texts": ("advertising_copy",),
}
SPLITS = {
    "news_topic": ("tnews", "dev_few_all", "sentence"),
    "sentiment": ("eprstmt", "dev_few_all", "sentence"),
    "comment_object": ("cote_mfw", "validation", "text"),
    "company_names": ("cluener2020", "validation", "text"),
    "advertising_copy": ("advertisegen", "validation", "attributes"),
}
"""Real texts of each task: the registry's task, its split and the field."""

OLD = "mengzi-zero-shot's way"
Rows = list[tuple[str, dict[str, str]]]
"""Tasks and inputs."""


def real_rows(case: str, number: int, data_dir: Path | None) -> Rows:
    """So many rows of the case's tasks, shuffled."""
    rows: Rows = []
    for name in CASES[case]:
        registry, split, field = SPLITS[name]
        task = get_task(registry)
        source = DataSource("files", data_dir, load_data_map(Path("public-extracts"))) if data_dir else DataSource("sample")
        texts = [row.values[field] for row in load_rows(task, split if data_dir else "validation", source).rows]
        random.Random(0).shuffle(texts)
        share = -(-number // len(CASES[case]))
        rows += [(name, {"text": texts[place % len(texts)]}) for place in range(share)]
    random.Random(1).shuffle(rows)
    return rows[:number]


def prompts_of(mengzi: Mengzi, rows: Rows) -> list[str]:
    """What the model reads for each row, through the default templates."""
    prompts = []
    for name, row in rows:
        task = TASKS[name]
        prompts.append(mengzi._example(task, task.choose(1)[0], row, 0, None)[0].inputs)
    return prompts


@torch.inference_mode()
def one_by_one(model: Any, tokenizer: Any, prompts: Sequence[str], steps: int) -> list[str]:
    """As ``MengziZeroShot.inference`` of mengzi-zero-shot 0.2.1 does it, with a limit of new tokens."""
    answers = []
    for prompt in prompts:
        encoded = tokenizer([prompt], max_length=512, truncation=True, padding=True, return_tensors="pt")
        found = model.generate(
            encoded["input_ids"], attention_mask=encoded["attention_mask"], max_new_tokens=steps, num_beams=1, do_sample=False
        )
        answers += [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in found]
    return answers


def by_task(mengzi: Mengzi, rows: Rows, **options: Any) -> list[str]:
    """Our way: each task's rows in one call. The answers as texts."""
    answers = [""] * len(rows)
    for name in dict.fromkeys(task for task, _ in rows):
        places = [place for place, (task, _) in enumerate(rows) if task == name]
        for place, result in zip(places, mengzi.predict(name, [rows[place][1] for place in places], **options), strict=True):
            answers[place] = str(getattr(result, "label", None) or getattr(result, "text", None) or result.to_dict())
    return answers


def written(mengzi: Mengzi, prompts: list[str], steps: int) -> list[str]:
    """The same prompts answered freely, all in one call."""
    return [result.text for result in mengzi.generate(prompts, max_new_tokens=steps)]


def measure(case: str, models: dict[str, Mengzi], rows: Rows, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Every way on the rows of each round."""
    first = models["float32"]
    model: Any = first.scorers.model
    tokenizer = first.scorers.scorer.convention.tokenizer
    size = len(rows) // rounds
    options = {} if case == "labels" else {"max_new_tokens": steps}
    seconds: dict[str, list[float]] = {}
    same: dict[str, int] = {}
    for number in range(rounds):
        part = rows[number * size : (number + 1) * size]
        prompts = prompts_of(first, part)
        ways: dict[str, Callable[[], list[str]]] = {OLD: partial(one_by_one, model, tokenizer, prompts, steps)}
        for name, one in models.items():
            ways[f"ours, {name}"] = partial(by_task, one, part, **options)
            if case == "labels":
                ways[f"ours, {name}, written"] = partial(written, one, prompts, steps)
        answers: dict[str, list[str]] = {}
        for name, way in ways.items():
            spent, answers[name] = timed(lambda _, way=way: way(), None)
            seconds.setdefault(name, []).append(spent / size)
        expected = [answer.strip() for answer in answers[OLD]]
        for name, found in answers.items():
            same[name] = same.get(name, 0) + sum(a == b for a, b in zip(found, expected, strict=True))
    slow = seconds[OLD]
    lines = []
    for name, spent in seconds.items():
        ratios = [a / b for a, b in zip(slow, spent, strict=True)]
        lines.append(
            {
                "case": case, "way": name, "texts_per_second": 1 / statistics.median(spent), "times": statistics.median(ratios),
                "range": [min(ratios), max(ratios)], "same_answers": same[name] / (size * rounds), "texts": size * rounds,
            }
        )  # fmt: skip
    return lines


def _form(export: Path) -> str:
    """What an export is called in the table."""
    written = json.loads((export / "export.json").read_text(encoding="utf-8"))
    return f"{written['runtime']} {written['precision']}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("MENGZI_MT_DATA"), help="folder of real files")
    parser.add_argument("--model", default="models/mengzi-mt-mini", help="checkpoint")
    parser.add_argument("--exports", nargs="*", default=[], help="exports of the checkpoint (mengzi-mt compress export)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--texts", type=int, default=512, help="of each case")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    keep_freed_memory()
    place = resolve(options.model)
    models = {name: Mengzi.load(place, dtype=name, device="cpu") for name in ("float32", "bfloat16")}
    models |= {_form(Path(folder)): Mengzi.load(folder, device="cpu") for folder in options.exports}
    for one in models.values():
        one.sentiment("试一试")
    result = []
    for case in options.cases.split(","):
        rows = real_rows(case, options.texts, options.data_dir)
        lines = measure(case, models, rows, options.rounds, options.new_tokens)
        result += lines
        for line in lines if not options.json else ():
            times = f"{line['times']:6.2f} [{line['range'][0]:.2f}–{line['range'][1]:.2f}] ×"
            pace = f"{line['texts_per_second']:8.2f} texts/s {times}"
            print(f"{case:8s} {line['way']:28s} {pace}  same answers {line['same_answers']:.0%}", flush=True)
    if options.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
