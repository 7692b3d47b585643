"""One process of an ablation: ``python -m mengzi_mt.pretraining.ablation_job JSON`` measures speeds, or makes and scores a run.

It ends as a run that is asked to stop does (:mod:`mengzi_mt.training.interrupts`) when its standard input is closed, which also
happens when the process that started it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mengzi_mt.data.token_shards import write_text
from mengzi_mt.errors import InputError, MengziError
from mengzi_mt.models.devices import pick_device
from mengzi_mt.pretraining.ablation_plan import HELD_OUT, Plan, read_plan
from mengzi_mt.pretraining.ablation_recipe import AblationRecipe
from mengzi_mt.pretraining.encoder_loop import train_encoder
from mengzi_mt.pretraining.encoder_losses import EncoderLosses, evaluate
from mengzi_mt.pretraining.encoder_recipe import EncoderRecipe
from mengzi_mt.pretraining.encoder_run import set_up_encoder
from mengzi_mt.pretraining.finetuning import finetune
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.checkpoint import read_manifest
from mengzi_mt.training.run_status import METRICS, read_metrics
from mengzi_mt.training.saving import FINAL, differences, with_defaults

WARM, TIMED = 2, 6
"""Steps before the measured ones, and measured ones."""
FINETUNING_STEPS = 12


def source_as_json(source: DataSource, data_map: str | None) -> dict[str, Any]:
    """A data source for another process; ``data_map`` is the file or name that it was given as."""
    return {"kind": source.kind, "root": str(source.root) if source.root else None, "map": data_map}


def source_from_json(raw: Mapping[str, Any]) -> DataSource:
    """The same there."""
    mapped = load_data_map(Path(raw["map"])) if raw["map"] and raw["kind"] == "files" else None
    return DataSource(raw["kind"], Path(raw["root"]) if raw["root"] else None, mapped)


def measure(recipe: AblationRecipe, source: DataSource) -> dict[str, Any]:
    """Seconds of everything that a run does, on this machine as it is now; the fields of ``Speeds``.

    Steps are timed by the training loop itself, as it logs them.
    """
    steps: dict[str, float] = {}
    starts, text = [], 0.0
    with tempfile.TemporaryDirectory(prefix="mengzi-mt-ablation-") as folder:
        for variant in recipe.variants:
            own = recipe.run_recipe(variant, recipe.seeds[0], WARM + TIMED, Path(folder) / variant)
            own = own.model_copy(update={"training": own.training.model_copy(update={"log_every": WARM})})
            began = time.perf_counter()
            final = train_encoder(set_up_encoder(own))
            spent = time.perf_counter() - began
            records = [record for record in read_metrics(own.run_dir / METRICS) if "step_seconds" in record]
            steps[variant] = sum(record["step_seconds"] for record in records[1:]) / len(records[1:])
            starts.append(spent - sum(record["seconds"] for record in records))
            text = text or read_manifest(final)["counters"]["text_tokens"] / (WARM + TIMED)
        checkpoint = Path(folder) / recipe.baseline / FINAL
        began = time.perf_counter()
        held_out_score(recipe, checkpoint)
        held_out = time.perf_counter() - began
        short = recipe.finetuning.model_copy(update={"steps": min(FINETUNING_STEPS, recipe.finetuning.steps)})
        tasks = {}
        for task in short.tasks:
            spent = finetune(checkpoint, task, source, short, recipe.seeds[0], recipe.training.device)["seconds"]
            tasks[task] = spent["read"] + spent["train"] * recipe.finetuning.steps / short.steps + spent["score"]
    return {"start": sum(starts) / len(starts), "step": steps, "held_out": held_out, "finetuning": tasks, "text": text}


def held_out_score(recipe: AblationRecipe, checkpoint: Path) -> dict[str, Any]:
    """Loss and share of right predictions of masked tokens on held-out windows, which every variant reads as the baseline does.

    Raises:
        InputError: no document is held out.
    """
    raw = recipe.run_recipe(recipe.baseline, recipe.seeds[0], 1, checkpoint).model_dump()
    raw["model"] |= {"shape": None, "init": str(checkpoint)}
    raw["training"] |= {"validate_every": 1}
    run = set_up_encoder(EncoderRecipe.model_validate(raw))
    if run.validation is None:
        raise InputError("No document is held out", where="training.held_out", fix="set a larger share")
    device = pick_device(recipe.training.device, "training.device")
    module = EncoderLosses(run.model, run.heads, recipe.training.precision)
    loss, right = evaluate(module.to(device), run.validation, device)["mlm"]
    return {"loss": loss, "accuracy": right, "predictions": run.validation.predictions["mlm"]}


def make_run(plan: Plan, variant: str, seed: int, source: DataSource) -> None:
    """Pretrain one variant with one seed and score it; what is done already is not done again.

    Raises:
        InputError: the run's folder holds another run.
        RunError: as of :func:`train_encoder` and :func:`finetune`.
    """
    recipe = plan.run_recipe(variant, seed)
    final = recipe.run_dir / FINAL
    if not _finished(final, recipe):
        final = train_encoder(set_up_encoder(recipe))
    for what in plan.scores:
        path = plan.score_path(variant, seed, what)
        if path.is_file():
            continue
        found: dict[str, Any] = (
            dict(held_out_score(plan.recipe, final))
            if what == HELD_OUT
            else finetune(final, what, source, plan.recipe.finetuning, seed, recipe.training.device)
        )
        write_text(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        print(f"{what}: {found.get('score', found.get('accuracy')):.4f}", file=sys.stderr, flush=True)


def _finished(final: Path, recipe: EncoderRecipe) -> bool:
    manifest = read_manifest(final)
    if manifest.get("step") != recipe.training.steps:
        return False
    different = differences(with_defaults(EncoderRecipe, manifest["recipe"]), recipe.model_dump(mode="json"))
    if different:
        raise InputError(
            "The run's folder holds another run: " + "; ".join(different),
            where=str(final),
            fix="remove it, or set another `output`",
        )
    return True


def _end_with_the_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would still hold at the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(argument: str) -> None:
    """Do what a JSON object says: ``{"kind": "measure" | "run", "folder": …, "source": …, …}``."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    job = json.loads(argument)
    source, folder = source_from_json(job["source"]), Path(job["folder"])
    if job["kind"] == "measure":
        recipe = AblationRecipe.model_validate(job["recipe"])
        write_text(folder / f"{job['number']}.json", json.dumps(measure(recipe, source)))
        return
    plan = read_plan(folder)
    assert plan is not None
    make_run(plan, job["variant"], job["seed"], source)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except MengziError as error:
        print(f"error: {error.paragraph()}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
