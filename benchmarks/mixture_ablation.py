"""What start, weights of examples, templates and rates are worth to a small multi-task model at the same budget, over seeds.

Two micro T5s are pretrained (plain, and with windows weighted by damage and distance), then every variant goes through
``recipes/mixture-micro.yaml`` with every seed and is scored on held-in validation rows: through a template that all variants
trained on, through two that none saw, and on tasks that none saw. The nine zero-shot tasks are not touched. Differences are from
the baseline of the same seed, with Student's interval over seeds (of weights and batches; each start is one run). The same command
goes on after an interruption.

Run: ``python -m benchmarks.mixture_ablation DATA CORPUS runs/mixture-ablation [--seeds 1,2,3] [--processes 2]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mengzi_mt.config import load_recipe
from mengzi_mt.data.examples import select_templates
from mengzi_mt.evaluation.results import RESULTS_FILE, read_results
from mengzi_mt.pretraining.ablation_results import paired
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.training.run_status import METRICS, read_metrics
from mengzi_mt.training.saving import FINAL

RECIPE, MAP = "mixture-micro", "public-extracts"
UNSEEN = 2
"""Templates of a task, its last, that no variant is trained on."""
GENERATED = ("cluener2020", "advertisegen")
NEW_TASKS, NEW_TEMPLATES = ("online_shopping_10_cats", "ocemotion", "smp2019_nlu"), 3
ROWS, DRAW = 300, 1

PRETRAINING = (
    "model.shape=micro", "denoising.window=256", "training.batch=32", "training.precision=float32", "training.workers=0",
    "training.validate_every=250", "training.checkpoint_every=250",
)  # fmt: skip
STARTS: dict[str, tuple[str, ...]] = {"plain": (), "weighted": ("denoising.instance={damage: 1, distance: 1}",)}


@dataclass(frozen=True)
class Variant:
    """What differs from the baseline."""

    name: str
    start: str | None = "plain"
    changes: tuple[str, ...] = ()


VARIANTS = (
    Variant("baseline"),
    Variant("random start", start=None),
    Variant("every token weighs the same", changes=("training.loss_weighting=token",)),
    Variant("one template a task", changes=("mixture.templates_per_task=1",)),
    Variant("three templates a task", changes=("mixture.templates_per_task=3",)),
    Variant("tasks equally often", changes=("mixture.strategy=equal",)),
    Variant("tasks by size", changes=("mixture.strategy=proportional",)),
    Variant("listed labels vary", changes=("mixture.vary_choices=0.7",)),
    Variant("start with weighted windows", start="weighted"),
)
BASELINE = VARIANTS[0]
LOSS = "loss"
MEASURES = ("seen template", "unseen templates", "new tasks", LOSS)


class Bench:
    """Folders and commands of one ablation."""

    def __init__(self, data: Path, corpus: Path, out: Path, steps: Sequence[int], processes: int) -> None:
        self.data, self.corpus, self.out, self.processes = data, corpus, out, processes
        self.pretraining_steps, self.steps = (f"training.steps={number}" for number in steps)
        self.tasks = load_recipe(RECIPE).mixture.tasks
        self.ranked = [name for name in self.tasks if name not in GENERATED]
        templates = {
            name: [one.name for one in select_templates(get_task(name), None, for_evaluation=True)]
            for name in (*self.tasks, *NEW_TASKS)
        }
        self.trained = {name: templates[name][:-UNSEEN] for name in self.tasks}
        self.asked = {  # (task, template) of each measure
            "seen template": [(name, templates[name][0]) for name in self.ranked],
            "unseen templates": [(name, template) for name in self.ranked for template in templates[name][-UNSEEN:]],
            "new tasks": [(name, template) for name in NEW_TASKS for template in templates[name][:NEW_TEMPLATES]],
        }

    def make(self, seeds: Sequence[int]) -> None:
        """Every start, then every variant with every seed; what is there is not made again."""
        with ThreadPoolExecutor(self.processes) as pool:
            starts = {start: pool.submit(self.pretrain, start) for start in STARTS}
            made = [
                pool.submit(self.fine_tune, variant, seed, starts.get(variant.start or ""))
                for seed in seeds
                for variant in VARIANTS
            ]
            for future in [*starts.values(), *made]:
                future.result()

    def pretrain(self, start: str) -> None:
        """One start."""
        folder = self.out / f"start-{start}"
        if not (folder / FINAL).is_dir():
            changes = [*PRETRAINING, *STARTS[start], self.pretraining_steps, f"denoising.corpus={self.corpus}", f"output={folder}"]
            self._command(folder, "train", "pretrain-mini", *changes)

    def fine_tune(self, variant: Variant, seed: int, started: Future[None] | None) -> None:
        """Train a variant once its start is there, and score it."""
        if started:
            started.result()
        folder, source = self.run(variant, seed), ["--data-dir", str(self.data), "--data-map", MAP]
        if not (folder / FINAL).is_dir():
            start = f"model={{init: {self.out / f'start-{variant.start}' / FINAL}}}" if variant.start else "model.shape=micro"
            changes = [start, f"mixture.templates={json.dumps(self.trained)}", self.steps, *variant.changes, f"seed={seed}"]
            self._command(folder, "train", RECIPE, *changes, f"output={folder}", *source)
        if not (folder / RESULTS_FILE).is_file():
            pairs = [pair for asked in self.asked.values() for pair in asked]
            tasks, templates = ",".join([*self.ranked, *NEW_TASKS]), ",".join(map("/".join, pairs))
            rows = ["--suite", "held-in", "--tasks", tasks, "--templates", templates, "--limit", str(ROWS), "--seed", str(DRAW)]
            self._command(folder, "evaluate", str(folder / FINAL), *rows, "--output", str(folder), *source)

    def run(self, variant: Variant, seed: int) -> Path:
        """The folder of a run."""
        return self.out / f"{variant.name.replace(' ', '-')}-{seed}"

    def _command(self, folder: Path, *words: str) -> None:
        """One command of mengzi-mt; its words go to the folder's log."""
        folder.mkdir(parents=True, exist_ok=True)
        log, environment = folder / f"{words[0]}.log", {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        if self.processes > 1:
            environment["OMP_NUM_THREADS"] = "1"
        with log.open("a") as file:
            ended = subprocess.run([sys.executable, "-m", "mengzi_mt", *words], stdout=file, stderr=file, env=environment)
        print(f"{folder.name}: {words[0]} {'failed' if ended.returncode else 'done'}", flush=True)
        if ended.returncode:
            raise SystemExit(f"{log} says why")

    def measures(self, variant: Variant, seed: int) -> dict[str, float]:
        """Mean accuracy in percent over tasks, and the mean validation loss of a target token."""
        folder = self.run(variant, seed)
        found = {
            (task["task"], one["template"]): one["metrics"]["accuracy"]
            for task in read_results(folder)["tasks"]
            for one in task["templates"]
        }
        shares = {measure: 100 * statistics.fmean(found[pair] for pair in asked) for measure, asked in self.asked.items()}
        last = [record["validation_losses"] for record in read_metrics(folder / METRICS) if "validation_losses" in record][-1]
        return {**shares, LOSS: statistics.fmean(last.values())}


def table(found: dict[tuple[str, int], dict[str, float]], seeds: Sequence[int]) -> Iterable[str]:
    """The results in Markdown."""
    yield f"| | {' | '.join(MEASURES)} |"
    yield "| --- |" + " --- |" * len(MEASURES)
    for variant in VARIANTS:
        cells = []
        for measure in MEASURES:
            own, other = ([found[name, seed][measure] for seed in seeds] for name in (variant.name, BASELINE.name))
            digits = 3 if measure == LOSS else 1
            if measure == LOSS and any("templates_per_task" in change for change in variant.changes):
                cells.append("")  # validation goes through the variant's own templates
                continue
            cell = f"{statistics.fmean(own):.{digits}f}"
            if variant is not BASELINE:
                difference = paired(own, other)
                ends = difference["interval"]
                interval = f" [{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]" if ends else ""
                cell += f" ({difference['difference']:+.{digits}f}{interval})"
            cells.append(cell.replace("-", "−"))
        yield f"| {variant.name} | {' | '.join(cells)} |"


def main() -> None:
    """Make what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--steps", type=int, nargs=2, default=(500, 400), help="of pretraining, and of the mixture")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    bench = Bench(arguments.data, arguments.corpus, arguments.out, arguments.steps, arguments.processes)
    bench.make(seeds)
    found = {(variant.name, seed): bench.measures(variant, seed) for variant in VARIANTS for seed in seeds}
    print("\n".join(table(found, seeds)))
    (arguments.out / "measures.json").write_text(json.dumps([[*key, values] for key, values in found.items()], indent=1) + "\n")


if __name__ == "__main__":
    main()
