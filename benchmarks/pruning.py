"""Size and speed of pruned checkpoints at batch 1: ``python -m benchmarks.pruning models/mengzi-mt-mini runs/prune-mini/final``.

Inputs are the bundled samples of two tasks: one whose choices are scored, one whose answer is generated (32 tokens at most). Times
are processor time, medians over inputs; the checkpoints take turns, so that what else runs meets all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mengzi_mt.data.choice_trees import choice_tree, tree_batch
from mengzi_mt.data.examples import TextExample, bound_templates, render_example
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.models.decoding import Decoder
from mengzi_mt.models.t5 import WEIGHTS_FILE, load_model, parameter_count
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.models.tree import TreeDecoder
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

SCORED, WRITTEN, STEPS = "chnsenticorp", "nlpcc2017_headline", 32


def examples(name: str, number: int) -> list[TextExample]:
    task = get_task(name)
    template = bound_templates(task).templates[0]
    rows = load_rows(task, "train", DataSource("sample")).rows[:number]
    return [render_example(task, template, row) for row in rows]


class Candidate:
    """A checkpoint made ready to score and to write."""

    def __init__(self, place: str) -> None:
        self.place, self.encoder = place, Encoder(load_tokenizer(place))
        self.model = load_model(place).eval()
        self.scorer = TreeDecoder(self.model)
        self.writer = Decoder(self.model, end=self.encoder.eos, steps=STEPS)
        self.times: dict[str, list[float]] = {"score": [], "generate": []}

    def timed(self, kind: str, act: Callable[[], Any]) -> None:
        """Note the milliseconds of processor time that it takes."""
        start = time.process_time()
        act()
        self.times[kind].append(1000 * (time.process_time() - start))

    def score(self, example: TextExample) -> None:
        """Rank the example's choices."""
        choices = [tuple(self.encoder.target(choice)) for choice in example.choices or ()]
        ids = [*self.encoder(example.inputs), self.encoder.eos]
        self.timed("score", lambda: self.scorer(tree_batch([(ids, choice_tree(choices, 0))])))

    def generate(self, example: TextExample) -> None:
        """Write the answer."""
        ids = [*self.encoder(example.inputs), self.encoder.eos][:512]
        self.timed("generate", lambda: self.writer.greedy([ids]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    candidates = [Candidate(place) for place in options.checkpoints]
    scored, written = (examples(name, options.inputs) for name in (SCORED, WRITTEN))
    for _ in range(options.rounds):
        for first, second in zip(scored, written, strict=False):
            for candidate in candidates:
                candidate.score(first)
                candidate.generate(second)
    print("checkpoint | parameters | bytes of weights | score, ms | generate, ms")
    for one in candidates:
        size = (Path(one.place) / WEIGHTS_FILE).stat().st_size
        score, generate = (statistics.median(one.times[kind]) for kind in ("score", "generate"))
        print(f"{one.place} | {parameter_count(one.model):,} | {size:,} | {score:.1f} | {generate:.1f}")


if __name__ == "__main__":
    main()
