"""From a run to its checkpoints and back: what is saved, what is restored, and which recipes may continue a run."""

from __future__ import annotations

import platform
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mengzi_mt import __version__
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import WEIGHTS_FILE, checkpoint_weights, parameter_count
from mengzi_mt.settings import Settings
from mengzi_mt.training.checkpoint import TrainerState, checkpoint_path, prune_checkpoints, read_manifest, save_checkpoint
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.ema import Ema
from mengzi_mt.training.lora import Lora
from mengzi_mt.training.run import Run
from mengzi_mt.training.sharding import load_optimiser, on_host
from mengzi_mt.training.stopping import BestScore
from mengzi_mt.training.tracking import Tracker

FINAL = "final"


@dataclass
class RunState:
    """What a run changes beside the model's weights."""

    optimiser: torch.optim.Optimizer
    counters: dict[str, int]
    ema: Ema | None
    lora: Lora | None
    best: BestScore
    progress: Tracker


def save(run: Run, state: RunState, devices: Devices, step: int) -> None:
    """A checkpoint to resume from, and room made for it. Called in every process; the main one writes."""
    keep = devices.main
    saved = TrainerState(
        step=step,
        optimiser=on_host(state.optimiser.state_dict(), keep),
        rng=random_states(devices),
        counters=dict(state.counters),
        recipe=run.recipe.model_dump(mode="json"),
        averages={"tracker": state.progress.state_dict(), "best": state.best.state_dict()},
        ema=on_host(state.ema.state_dict(), keep) if state.ema else None,
        lora=state.lora.state_dict() if state.lora else None,
    )
    _write(run, state, devices, checkpoint_path(run.recipe.run_dir, step), step, saved)
    if devices.main:
        best = state.best.step if run.recipe.stopping.keep_best else None
        prune_checkpoints(run.recipe.run_dir, run.recipe.training.keep_last, best)


def save_final(run: Run, state: RunState, devices: Devices, step: int) -> Path:
    """The checkpoint that a finished run is for, with the weights that the model has now. Called in every process."""
    folder = run.recipe.run_dir / FINAL
    _write(run, state, devices, folder, step, None)
    devices.wait()
    return folder


def _write(run: Run, state: RunState, devices: Devices, folder: Path, step: int, saved: TrainerState | None) -> None:
    """A plain T5: adapters are added to its weights, and stand beside it by themselves."""
    with state.lora.merged() if state.lora else nullcontext():
        weights = on_host(checkpoint_weights(run.model), devices.main)
        if devices.main:
            contents = manifest(run, step, state.counters)
            also = state.lora.write if state.lora else None
            save_checkpoint(folder, run.model, run.tokenizer, contents, saved, weights=weights, also=also)


def manifest(run: Run, step: int, counters: dict[str, int]) -> dict[str, Any]:
    """What a checkpoint's ``mengzi_mt.json`` says of its run after ``step`` steps."""
    import transformers

    zero_shot = [pool.task.name for pool in run.mixture.pools if pool.task.role == "zero_shot"]
    return {
        "format": "mengzi-mt/checkpoint/1",
        "step": step,
        "recipe": run.recipe.model_dump(mode="json"),
        "parameters": parameter_count(run.model),
        "counters": counters,
        "mixture": run.rates,
        "examples": run.counts(step * run.recipe.training.batch),
        "zero_shot_tasks_trained_on": zero_shot,
        "versions": {
            "mengzi_mt": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **run.provenance,
    }


_FREE_TO_CHANGE = {"log_every", "validate_every", "checkpoint_every", "keep_last", "device", "workers"}
_FREE_BUT_FOR_ROUNDING = {"micro_batch_tokens", "recompute", "parallel"}
"""Changed by a run that is out of memory, or goes on elsewhere: the same sums, in another order."""
_NEVER_ACCEPTED = ("model", "optimiser.name", "training.freeze", "training.lora")


def load_weights(folder: Path, run: Run, saved: TrainerState, lora: Lora | None = None, accept_changes: bool = False) -> None:
    """Give the model the weights of the checkpoint that holds ``saved``.

    The checkpoint of another recipe is refused unless told; then the run's provenance says what was changed and when.

    Raises:
        InputError: another recipe, named with its differences; or weights of another model.
    """
    different = differences(with_defaults(type(run.recipe), saved.recipe), run.recipe.model_dump(mode="json"))
    fixed = [change for change in different if change.startswith(_NEVER_ACCEPTED)]
    if different and (fixed or not accept_changes):
        way_out = "restore these values, set another `output`, or continue with the new ones: --accept-changes"
        if fixed:
            names = ", ".join(change.split(":")[0] for change in fixed)
            way_out = f"restore {names}, which no checkpoint survives, or set another `output`"
        what = "The run folder holds checkpoints of another recipe: " + "; ".join(different)
        raise InputError(what, where=str(folder.parent), fix=way_out)
    changes = read_manifest(folder).get("recipe_changes", [])
    if different:
        changes = [*changes, {"step": saved.step, "changes": different}]
    if changes:
        run.provenance["recipe_changes"] = changes
    if lora:  # the weights file holds the adapters added to a model that the run has loaded from its own start
        lora.load_state_dict(saved.lora)
        return
    missing, unexpected = run.model.load_state_dict(load_file(str(folder / WEIGHTS_FILE)), strict=False)
    tied = [key for key in missing if "embed_tokens" not in key and key != "lm_head.weight"]
    if tied or unexpected:
        raise InputError(f"The checkpoint's weights do not fit: {tied[:1] or unexpected[:1]}", where=str(folder))


def restore(saved: TrainerState, optimiser: torch.optim.Optimizer, ema: Ema | None, devices: Devices, seed: int) -> None:
    """Give the optimiser, the averaged weights and this process's random states what they had when ``saved`` was."""
    load_optimiser(optimiser, saved.optimiser)
    if ema and saved.ema:
        ema.load_state_dict(saved.ema)
    restore_random_states(saved.rng, devices, seed + saved.step)


def random_states(devices: Devices) -> dict[str, Any]:
    """The random states of every process: the main one's, and ``others``."""
    own: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if devices.device.type == "cuda":
        own["cuda"] = [torch.cuda.get_rng_state(devices.device)]
    first, *others = devices.gather(own)
    return {**first, "others": others}


def restore_random_states(rng: dict[str, Any], devices: Devices, seed: int) -> None:
    """Each process takes the state that it had; one that was not there before draws from ``seed`` plus its number."""
    states = [rng, *rng.get("others", [])]
    if devices.number >= len(states):
        torch.manual_seed(seed + devices.number)
        return
    own = states[devices.number]
    torch.set_rng_state(own["cpu"])
    if "cuda" in own and devices.device.type == "cuda":
        torch.cuda.set_rng_state(own["cuda"][0], devices.device)


def with_defaults(kind: type[Settings], recipe: dict[str, Any]) -> dict[str, Any]:
    """A saved recipe with the keys that were added since it was saved, at their defaults."""
    try:
        return kind.model_validate(recipe).model_dump(mode="json")
    except ValueError:
        return recipe


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What two recipes differ in, but for what a resumed run may change freely."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            place = f"{path}.{key}" if path else key
            if _is_free(place):
                continue
            found += differences(old.get(key), new.get(key), place)
        return found
    return [] if old == new else [f"{path}: {old!r} there, {new!r} here"]


def lasting(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without what a resumed run may change freely."""
    kept = {key: value for key, value in recipe.items() if not _is_free(key)}
    return kept | {"training": {key: value for key, value in recipe["training"].items() if not _is_free(f"training.{key}")}}


def _is_free(place: str) -> bool:
    free = place.removeprefix("training.") in _FREE_TO_CHANGE | _FREE_BUT_FOR_ROUNDING
    return free or place in ("description", "output", "tracking")
