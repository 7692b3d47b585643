"""Size and speed of exports on a CPU beside transformers and this package's own float32.

``python -m benchmarks.runtimes --data-dir DATA [--models NAMES] [--rounds 3] [--rows 32] [--exports FOLDER] [--json]``

One thread, processor time, every round other rows of tnews (15 choices) and lcqmc (2), all ways one after the other on them; ratios
are formed within a round. *transformers* scores a row for each choice and generates with ``generate``, in float32, batches of 32 by
length. Exports are written to ``--exports`` once and kept; the shape ``small`` has random weights. Four times for each way: scoring
and greedy generation, in batches of 32 and one by one (milliseconds an input, the median of all).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks.eval_speed import VOCABULARY, pair_by_pair, real_examples, timed
from benchmarks.generation_speed import BATCH, peer
from mengzi_mt.compression.export import ExportSettings, export
from mengzi_mt.data.examples import TextExample, render_rows, select_templates
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.evaluation.loading import load_exported
from mengzi_mt.evaluation.scoring import ChoiceScorer
from mengzi_mt.models.t5 import build_model, load_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.checkpoint import save_checkpoint
from mengzi_mt.training.memory import keep_freed_memory

FORMS = (
    ("torch", "int8"),
    ("ctranslate2", "float32"),
    ("ctranslate2", "int8"),
    ("onnx", "float32"),
    ("onnx", "int8"),
)
ALONE = 6
"""Rows a round that go one by one."""


def examples_of(data_dir: Path, number: int) -> list[TextExample]:
    """Rows of both tasks in turn."""
    tnews = real_examples("tnews", "recommend_channel", data_dir, number)
    task = get_task("lcqmc")
    template = next(one for one in select_templates(task, None, for_evaluation=True) if one.answer_choices)
    source = DataSource("files", data_dir, data_map=load_data_map(Path("public-extracts")))
    lcqmc = list(render_rows(task, template, load_rows(task, "validation", source).rows[:number]))
    return [one for pair in zip(tnews, lcqmc, strict=False) for one in pair][:number]


class Transformers:
    """The float32 model through transformers alone."""

    def __init__(self, model: Any, tokenizer: Any, steps: int) -> None:
        self.model, self.encoder, self.steps = model, Encoder(tokenizer), steps

    def score(self, examples: Sequence[TextExample]) -> list[list[float]]:
        """Log-probabilities of each example's choices; those with equally many choices go together."""
        results: list[list[float]] = [[] for _ in examples]
        for size in {len(one.choices or ()) for one in examples}:
            places = [place for place, one in enumerate(examples) if len(one.choices or ()) == size]
            ids = [
                (self._ids(examples[at]), [[*self.encoder(c), self.encoder.eos] for c in examples[at].choices or ()])
                for at in places
            ]
            for place, scores in zip(places, pair_by_pair(self.model, ids), strict=True):
                results[place] = scores
        return results

    def generate(self, examples: Sequence[TextExample]) -> list[str]:
        """Greedy answers."""
        found = peer(self.model, [self._ids(one) for one in examples], BATCH, self.steps, 1)
        return [str(self.encoder.tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in found]

    def _ids(self, example: TextExample) -> list[int]:
        return self.encoder.inputs(example, 512)[0]


class Own:
    """A scorer and a generator of this package."""

    def __init__(self, scorer: Any, generator: Any) -> None:
        self.scorer, self.generator = scorer, generator

    def score(self, examples: Sequence[TextExample]) -> list[list[float]]:
        """Log-probabilities of each example's choices."""
        return [list(one.log_probabilities) for one in self.scorer.score(examples)]

    def generate(self, examples: Sequence[TextExample]) -> list[str]:
        """Greedy answers."""
        return [one.text for one in self.generator.generate(examples)]


def size_of(folder: Path, runtime: str) -> int:
    """Bytes of the weights: the runtime's own files, or the checkpoint's."""
    return sum(path.stat().st_size for path in (folder / runtime).rglob("*") if path.is_file())


def measure(
    name: str, exports: Path, forms: Sequence[tuple[str, str]], rows: list[TextExample], options: Any
) -> list[dict[str, Any]]:
    """All ways on one model."""
    checkpoint = Path(resolve("models/mengzi-mt-mini"))
    tokenizer = load_tokenizer(checkpoint)
    if name != "mengzi-mt-mini":
        checkpoint = exports / name
        if not checkpoint.is_dir():
            save_checkpoint(checkpoint, build_model(name, VOCABULARY, 0.0, 0), tokenizer, {"recipe": {"name": name}})
    model = load_model(checkpoint).eval()
    steps = options.new_tokens
    ways: dict[str, Any] = {
        "transformers float32": Transformers(model, tokenizer, steps),
        "ours float32": Own(
            ChoiceScorer(model, tokenizer, batch_size=BATCH), Generator(model, tokenizer, batch_size=BATCH, max_new_tokens=steps)
        ),
    }
    plain = sum(value.numel() * 4 for value in {id(one): one for one in model.parameters()}.values())
    sizes = dict.fromkeys(ways, plain)
    for to, precision in forms:
        folder = exports / f"{name}-{to}-{precision}"
        if not folder.is_dir():
            export(checkpoint, folder, ExportSettings(to=to, precision=precision))  # type: ignore[arg-type]
        loaded = load_exported(folder, tokenizer, batch_size=BATCH, max_new_tokens=steps)
        way = f"{'torch-int8' if to == 'torch' else f'{to} {precision}'}"
        ways[way] = Own(loaded.scorer, loaded.generator)
        sizes[way] = size_of(folder, "torch-int8" if to == "torch" else to)
    spent: dict[tuple[str, str], list[float]] = {}
    differences: dict[str, list[float]] = {way: [] for way in ways}
    same: dict[str, list[bool]] = {way: [] for way in ways}
    for way in ways.values():
        way.score(rows[:2]), way.generate(rows[:2])
    for number in range(options.rounds):
        part = rows[number * options.rows : (number + 1) * options.rows]
        scores, texts = {}, {}
        for label, way in ways.items():
            for kind, call in (("score", way.score), ("generate", way.generate)):
                seconds, found = timed(call, part)
                spent.setdefault((label, kind), []).append(seconds / len(part))
                (scores if kind == "score" else texts)[label] = found
                for one in part[:ALONE]:
                    spent.setdefault((label, f"{kind} 1"), []).append(timed(call, [one])[0])
        for label in ways:
            pairs = zip(scores["transformers float32"], scores[label], strict=True)
            differences[label] += [abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)]
            same[label] += [a == b for a, b in zip(texts["transformers float32"], texts[label], strict=True)]
    base = "transformers float32"
    return [
        {
            "model": name, "way": way, "bytes": sizes[way], "smaller": plain / sizes[way],
            **{
                kind: {"per_second": 1 / statistics.median(spent[way, kind]), "times": statistics.median(
                    slow / fast for slow, fast in zip(spent[base, kind], spent[way, kind], strict=True))}
                for kind in ("score", "generate")
            },
            **{f"{kind}_ms": 1000 * statistics.median(spent[way, f"{kind} 1"]) for kind in ("score", "generate")},
            "largest_difference": max(differences[way]), "same_texts": statistics.mean(same[way]),
        }
        for way in ways
    ]  # fmt: skip


def main() -> None:
    """Measure and print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, default=os.environ.get("MENGZI_MT_DATA"), required=not os.environ.get("MENGZI_MT_DATA")
    )
    parser.add_argument("--models", default="mengzi-mt-mini,small")
    parser.add_argument("--forms", default=",".join(":".join(form) for form in FORMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="a round, half of them of each task")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--exports", type=Path, help="where exports are kept; a temporary folder by default")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    keep_freed_memory()
    rows = examples_of(options.data_dir, options.rows * options.rounds)
    forms = [(to, precision) for to, _, precision in (form.partition(":") for form in options.forms.split(","))]
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models.split(","):
            lines = measure(name, options.exports or Path(temporary), forms, rows, options)
            if options.json:
                print(json.dumps(lines, indent=1), flush=True)
                continue
            print(
                f"| {name} | MB | × smaller | score/s | × | score 1, ms | answers/s | × | answer 1, ms | max Δ log p | same texts |"
            )
            print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
            for line in lines:
                print(
                    f"| {line['way']} | {line['bytes'] / 1e6:.1f} | {line['smaller']:.2f} | {line['score']['per_second']:.1f} "
                    f"| {line['score']['times']:.2f} | {line['score_ms']:.1f} | {line['generate']['per_second']:.1f} "
                    f"| {line['generate']['times']:.2f} | {line['generate_ms']:.1f} | {line['largest_difference']:.2g} "
                    f"| {line['same_texts']:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
