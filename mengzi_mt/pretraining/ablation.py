"""Ablations: every variant of an encoder's objectives pretrained with every seed on equally many windows, and fine-tuned."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mengzi_mt.pretraining.ablation_budget import Budget, fit, makespan, mean_speeds
from mengzi_mt.pretraining.ablation_job import source_as_json
from mengzi_mt.pretraining.ablation_plan import Plan, check_inputs, check_same, described_data, read_plan, run_name
from mengzi_mt.pretraining.ablation_processes import Job, run_side_by_side
from mengzi_mt.pretraining.ablation_recipe import AblationRecipe
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.progress import clock
from mengzi_mt.training.run_status import read_status

Say = Callable[[str], None]


def make_plan(
    recipe: AblationRecipe, source: DataSource, data_map: str | None, hours: float, processes: int, say: Say
) -> tuple[Plan, bool]:
    """The plan that the recipe's folder holds, or a new one with a budget for these hours, which is not written yet.

    Args:
        recipe: of the ablation.
        source: of the tasks' rows.
        data_map: the name or file that the source's map was read from.
        hours: by the clock, for all runs.
        processes: side by side.
        say: hears of what is going on.

    Returns:
        The plan, and whether it was there already.

    Raises:
        InputError: an untagged corpus, an unfit task, a folder of another ablation, too few hours.
    """
    corpus = check_inputs(recipe, source)
    found = read_plan(recipe.run_dir)
    if found is not None:
        check_same(found, recipe, corpus, source)
        return found, True
    say(f"measuring {len(recipe.variants)} variants and {len(recipe.finetuning.tasks)} tasks with {processes} processes …")
    budget = measured_budget(recipe, source, data_map, hours, processes)
    return Plan(recipe, corpus, described_data(source), budget), False


def measured_budget(recipe: AblationRecipe, source: DataSource, data_map: str | None, hours: float, processes: int) -> Budget:
    """Measure in as many processes at once as will run later, and fit the steps into the hours."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="mengzi-mt-ablation-"))  # stays where a process fails, for its log
    given = {
        "kind": "measure",
        "folder": str(folder),
        "source": source_as_json(source, data_map),
        "recipe": recipe.model_dump(mode="json"),
    }
    jobs = [Job(f"measuring {n}", {**given, "number": n}, folder / f"{n}.log") for n in range(processes)]
    run_side_by_side(jobs, processes, lambda running, done: None)
    speeds = mean_speeds([json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in range(processes)])
    shutil.rmtree(folder)
    measuring = time.monotonic() - began
    return fit(list(recipe.variants), recipe.seeds, speeds, hours, processes, recipe.training.steps, measuring)


def run_plan(plan: Plan, source: DataSource, data_map: str | None, processes: int, say: Say) -> None:
    """Make and score all runs that are not made yet.

    Raises:
        InputError, RunError: as of the runs; what is finished stays.
    """
    unfinished = [run for run in plan.runs if not _is_scored(plan, run)]
    if len(unfinished) < len(plan.runs):
        say(f"{len(plan.runs) - len(unfinished)} of {len(plan.runs)} runs are finished already")
    given = {"kind": "run", "folder": str(plan.folder), "source": source_as_json(source, data_map)}
    jobs = [
        Job(run_name(*run), {**given, "variant": run[0], "seed": run[1]}, plan.folder / "logs" / f"{run_name(*run)}.log")
        for run in unfinished
    ]
    before, began = _left(plan, processes), time.monotonic()

    def show(running: list[str], done: list[str]) -> None:
        left, spent = _left(plan, processes), time.monotonic() - began
        pace = spent / (before - left) if before - left > 1 else 1.0  # seconds by the clock for an expected one
        under_way = ", ".join(f"{name} {_place(plan, name)}" for name in running)
        finished = len(plan.runs) - len(unfinished) + len(done)
        say(f"{finished}/{len(plan.runs)} runs | {under_way or 'nothing under way'} | ETA {clock(left * pace)}")

    run_side_by_side(jobs, processes, show)


def _is_scored(plan: Plan, run: tuple[str, int]) -> bool:
    return all(plan.score_path(*run, what).is_file() for what in plan.scores)


def _left(plan: Plan, processes: int) -> float:
    """Seconds by the clock that all runs still need, as the budget expects them."""
    speeds, steps = plan.budget.speeds, plan.budget.steps
    costs = {"held_out": speeds.held_out, **speeds.finetuning}
    open_runs = []
    for variant, seed in plan.runs:
        todo = sum(costs[what] for what in plan.scores if not plan.score_path(variant, seed, what).is_file())
        if not plan.score_path(variant, seed, plan.scores[0]).is_file():
            step = int(read_status(plan.run_recipe(variant, seed).run_dir).get("step", 0))
            todo += (steps - step) * speeds.step[variant] + (speeds.start if not step else 0.0)
        if todo:
            open_runs.append(todo)
    return makespan(open_runs, processes)


def _place(plan: Plan, name: str) -> str:
    """How far a run is."""
    variant, _, seed = name.rpartition("-")
    scored = sum(plan.score_path(variant, int(seed), what).is_file() for what in plan.scores)
    step = read_status(plan.folder / "runs" / name).get("step", 0)
    return f"step {step:,}/{plan.budget.steps:,}" if step < plan.budget.steps else f"scored {scored}/{len(plan.scores)}"
