"""An encoder's training loop, from a run to checkpoints.

It has the parts of a T5's loop (:mod:`mengzi_mt.training.loop`) that know nothing of T5: optimisers, schedules, loader, tracker,
checkpoints, signals. The rest is short enough to stand by itself; it runs in one process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mengzi_mt import __version__
from mengzi_mt.config import TrainingSettings, dump_recipe
from mengzi_mt.errors import InputError, RunError, first_line
from mengzi_mt.models.pruned import pruned_section
from mengzi_mt.pretraining.encoder_batches import EncoderStep
from mengzi_mt.pretraining.encoder_instances import EncoderInstances
from mengzi_mt.pretraining.encoder_losses import EncoderLosses, accumulate, evaluate
from mengzi_mt.pretraining.encoder_models import restore_encoder, save_encoder
from mengzi_mt.pretraining.encoder_run import EncoderRun, training_flops
from mengzi_mt.training.checkpoint import (
    TrainerState,
    checkpoint_path,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    read_manifest,
    write_checkpoint,
)
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.interrupts import Interrupts
from mengzi_mt.training.loader import Loader
from mengzi_mt.training.memory import is_out_of_memory, keep_freed_memory
from mengzi_mt.training.optimisers import learning_rate, make_optimiser, set_learning_rate
from mengzi_mt.training.run_lock import sole_writer
from mengzi_mt.training.saving import FINAL, differences, random_states, restore_random_states, with_defaults
from mengzi_mt.training.tracking import Tracker


@dataclass
class _State:
    """What a run changes beside the weights."""

    optimiser: torch.optim.Optimizer
    counters: dict[str, int]
    progress: Tracker
    devices: Devices


def train_encoder(run: EncoderRun, *, resume: bool = True) -> Path:
    """Train to the recipe's last step and return the final checkpoint's folder.

    A run whose folder holds checkpoints continues from the newest whole one, with the losses of an uninterrupted run.

    Args:
        run: what to train on what.
        resume: whether to continue an interrupted run; without, an existing one is refused.

    Raises:
        RunError: a loss that is no number (the last checkpoint stays), no memory, or a full disk.
        InputError: a run folder of another recipe, or one that another process is writing to; several processes.
    """
    devices = Devices(TrainingSettings(steps=1, device=run.recipe.training.device))
    if devices.count > 1:
        raise InputError(
            "An encoder is trained by one process", where=f"{devices.count} were launched", fix="start it without torchrun"
        )
    with sole_writer(run.recipe.run_dir, devices):
        return _train(run, devices, resume)


def _train(run: EncoderRun, devices: Devices, resume: bool) -> Path:
    recipe = run.recipe
    if devices.device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(recipe.seed)
    found, problems = latest_checkpoint(recipe.run_dir)
    saved = None
    if found is not None:
        if not resume:
            raise InputError(
                "The run folder holds checkpoints already", where=str(recipe.run_dir), fix="resume, or set another `output`"
            )
        saved = load_state(found)
        different = differences(with_defaults(type(recipe), saved.recipe), recipe.model_dump(mode="json"))
        if different:
            raise InputError(
                "The run folder holds checkpoints of another recipe: " + "; ".join(different), where=str(recipe.run_dir),
                fix="restore these values, or set another `output`",
            )  # fmt: skip
        before, now = read_manifest(found), _data(run)
        if any(before.get(key) != value for key, value in now.items()):
            raise InputError(
                "The corpus or its tags are not those that the run began with", where=f"{recipe.corpus} and {found}",
                fix="restore them, or set another `output`",
            )  # fmt: skip
        restore_encoder(run.model, run.heads, found)
    module = EncoderLosses(run.model, run.heads, recipe.training.precision, run.guide)
    nn.Module.to(module, devices.device).train()
    optimiser = make_optimiser(module, recipe.optimiser)
    first_step, counters, tracked = 0, dict.fromkeys(("tokens", "text_tokens", "masked_tokens", "examples"), 0), None
    if saved is not None:
        optimiser.load_state_dict(saved.optimiser)
        restore_random_states(saved.rng, devices, recipe.seed + saved.step)
        first_step, counters, tracked = saved.step, counters | saved.counters, saved.averages.get("tracker")
    with Tracker(recipe, run.names, run.model, devices.device, first_step, tracked) as progress:
        for problem in problems:
            progress.say(f"warning: not resumed from {problem}")
        (recipe.run_dir / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        size = sum(parameter.numel() for parameter in run.model.parameters())
        order = run.maker.stream.order
        progress.say(
            f"resumed from {found.name}" if found is not None else
            f"{size / 1e6:.1f} M parameters, {', '.join(run.names)}, {devices.sentence()}; "
            f"an epoch has {order.count:,} windows of {order.tokens:,} tokens"
        )  # fmt: skip
        return _run_steps(run, _State(optimiser, counters, progress, devices), module, first_step)


def _run_steps(run: EncoderRun, state: _State, module: EncoderLosses, first_step: int) -> Path:
    """The steps from ``first_step`` on, and the final checkpoint."""
    recipe, settings, progress, device = run.recipe, run.recipe.training, state.progress, state.devices.device
    names, rows = run.names, recipe.objectives.instance
    instance = EncoderInstances(rows) if run.guide is None and (rows.damage or rows.reads_originals) else None

    def observe(name: str, losses: torch.Tensor) -> None:
        progress.task_losses.add(losses, torch.full((len(losses),), names.index(name)))

    make: Any = run.maker
    with Loader(make, first_step, settings.steps, settings.workers) as loader, Interrupts() as interrupts:
        batches: Any = iter(loader)
        for step in range(first_step, settings.steps):
            with progress.waiting():
                batch: EncoderStep = next(batches)
            rate = learning_rate(recipe.optimiser, step, settings.steps)
            set_learning_rate(state.optimiser, rate)
            try:
                loss = accumulate(module, batch, run.weights(step), device, observe, instance)
                norm = state.devices.clip(module, recipe.optimiser.clip)
                if not math.isfinite(float(loss)) or not math.isfinite(norm):
                    raise RunError(
                        f"The loss is {float(loss)} and the gradient norm {norm} at step {step + 1}", where=str(recipe.run_dir),
                        fix="lower optimiser.learning_rate; the last checkpoint is untouched and the run resumes from it",
                    )  # fmt: skip
                state.optimiser.step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise RunError(
                    f"Out of memory in step {step + 1}: {first_line(error)}", where=str(recipe.run_dir),
                    fix=f"go on with training.micro_batch_tokens={settings.micro_batch_tokens // 2} (the result stays the same); "
                    "the same command then resumes from the last checkpoint",
                ) from error  # fmt: skip
            state.optimiser.zero_grad(set_to_none=True)

            done = step + 1
            read = {"tokens": batch.tokens, "text_tokens": batch.text, "masked_tokens": batch.count("mlm")}
            for name, number in {**read, "examples": batch.examples}.items():
                state.counters[name] += number
            examples = {name: batch.count(name) for name in names}
            progress.step(loss, batch.tokens, batch.slots, examples, work=training_flops(run, batch))
            if done % settings.log_every == 0 or done == settings.steps:
                progress.log(done, norm, rate)
            if settings.validate_every and (done % settings.validate_every == 0 or done == settings.steps):
                with progress.paused():
                    _validate(run, state, module, done)
            asked = interrupts.asked is not None
            if asked or (done % settings.checkpoint_every == 0 and done < settings.steps):
                with progress.paused():
                    _save(run, state, done)
            if asked:
                progress.say(f"saved {checkpoint_path(recipe.run_dir, done).name}; the same command goes on from there")
                interrupts.stop()

    with progress.paused():
        _save(run, state, settings.steps)
        final = recipe.run_dir / FINAL
        _write(run, state, final, settings.steps, None)
    progress.say(f"done: {final}")
    return final


def _validate(run: EncoderRun, state: _State, module: EncoderLosses, step: int) -> None:
    """Log the held-out windows' losses and shares of right predictions."""
    if run.validation is None:
        return
    found = evaluate(module, run.validation, state.devices.device)
    full = run.weights(run.recipe.training.steps)
    losses = {name: loss for name, (loss, _) in found.items()}
    right = {f"{name}_accuracy": share for name, (_, share) in found.items() if share is not None}
    total = sum(full[name] * loss for name, loss in losses.items())
    state.progress.record({"step": step, "validation_loss": total, "validation_losses": losses, "scores": right})
    shown = ", ".join(f"{name} {loss:.3f}" + ("" if share is None else f" ({share:.1%})") for name, (loss, share) in found.items())
    state.progress.say(f"step {step}: validation loss {total:.4f}: {shown}")


def _save(run: EncoderRun, state: _State, step: int) -> None:
    """A checkpoint to resume from, and room made for it."""
    recipe = run.recipe
    saved = TrainerState(
        step=step,
        optimiser=state.optimiser.state_dict(),
        rng=random_states(state.devices),
        counters=dict(state.counters),
        recipe=recipe.model_dump(mode="json"),
        averages={"tracker": state.progress.state_dict()},
    )
    _write(run, state, checkpoint_path(recipe.run_dir, step), step, saved)
    prune_checkpoints(recipe.run_dir, recipe.training.keep_last)


def _write(run: EncoderRun, state: _State, folder: Path, step: int, saved: TrainerState | None) -> None:
    import transformers

    recipe = run.recipe
    manifest = {
        "format": "mengzi-mt/encoder/1",
        "step": step,
        "recipe": recipe.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "counters": state.counters,
        **_data(run),
        **pruned_section(run.model),
        "versions": {"mengzi_mt": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }
    write_checkpoint(
        folder, lambda beside: save_encoder(run.model, run.heads, beside), run.tokenizer, manifest, _card(run, step), saved
    )


def _data(run: EncoderRun) -> dict[str, Any]:
    """What the run reads, for its manifest."""
    manifest = run.corpus.manifest
    return {
        "labels": run.labels,
        "tagger": manifest.get("tags", {}).get("tagger"),
        "corpus": {"fingerprint": manifest["fingerprint"], "sources": manifest.get("sources", {})},
    }


def _card(run: EncoderRun, step: int) -> str:
    """The checkpoint's ``README.md``."""
    recipe = run.recipe
    sources = sorted(run.corpus.manifest.get("sources", {}))
    return (
        "---\nlanguage: zh\nlibrary_name: transformers\npipeline_tag: fill-mask\ntags: [mengzi-mt]\n---\n\n"
        f"# {recipe.name}\n\nA Chinese encoder ({run.model.config.model_type}) pretrained by mengzi-mt, step {step}; objectives: "
        f"{', '.join(run.names)}. `mengzi_mt.json` holds the recipe, labels and hashes; the heads of the objectives "
        f"beside masked language modelling are in `objective_heads.safetensors`. The mask is `{run.tokenizer.mask_token}`.\n\n"
        f"Trained on {run.corpus.documents:,} documents{' of ' + ', '.join(sources) if sources else ''}.\n"
    )
