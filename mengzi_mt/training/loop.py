"""The training loop, from a recipe to checkpoints. It reads from top to bottom as the run goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from mengzi_mt.config import dump_recipe
from mengzi_mt.data.batch import PackedBatch
from mengzi_mt.data.flat import FlatBatch
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError, RunError
from mengzi_mt.models.devices import slow_bfloat16
from mengzi_mt.models.t5 import parameter_count
from mengzi_mt.training.checkpoint import checkpoint_path, latest_checkpoint, load_state
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.ema import Ema
from mengzi_mt.training.flops import Work
from mengzi_mt.training.freezing import freeze
from mengzi_mt.training.interrupts import Interrupts
from mengzi_mt.training.loader import Loader, StepMaker
from mengzi_mt.training.lora import Lora
from mengzi_mt.training.losses import LossModule, accumulate, tokenised_loss, validation_loss
from mengzi_mt.training.memory import keep_freed_memory, memory_errors_explained
from mengzi_mt.training.optimisers import learning_rate, make_optimiser, set_learning_rate
from mengzi_mt.training.run import Run
from mengzi_mt.training.run_lock import sole_writer
from mengzi_mt.training.saving import RunState, load_weights, restore, save, save_final
from mengzi_mt.training.setup import warn
from mengzi_mt.training.sharding import gathered
from mengzi_mt.training.stopping import BestScore
from mengzi_mt.training.tracking import Tracker

Validate = Callable[[T5ForConditionalGeneration, int], dict[str, float]]
"""Called in every process at the same time; the main one's scores count."""


def train(run: Run, *, resume: bool = True, accept_changes: bool = False, validate: Validate | None = None) -> Path:
    """Train to the recipe's last step and return the final checkpoint's folder.

    A run whose folder holds checkpoints continues from the newest complete one, and gives the losses that an
    uninterrupted run gives: examples are a pure function of the step, and the random states are restored.

    Under ``torchrun`` or ``accelerate launch`` every process calls this; they share each step out and do as one.

    Args:
        run: what to train on what.
        resume: whether to continue an interrupted run; without, an existing one is refused.
        accept_changes: continue it with a recipe that differs; the checkpoints' manifests then hold the differences.
        validate: called with the model and the step after each validation; its scores are logged.

    Raises:
        RunError: a loss that is no number (the last good checkpoint stays), a full disk, or another process that ended.
        InputError: a run folder of another recipe, or one that another process is writing to.
    """
    devices = Devices(run.recipe.training)
    with devices.failures_explained(), sole_writer(run.recipe.run_dir, devices):
        return _train(run, devices, resume, accept_changes, validate)


def _train(run: Run, devices: Devices, resume: bool, accept_changes: bool, validate: Validate | None) -> Path:
    recipe, settings, model = run.recipe, run.recipe.training, run.model
    run_dir = recipe.run_dir
    if devices.device.type == "cpu":
        keep_freed_memory()
        warn(slow_bfloat16(settings.precision, devices.device, "training.precision=float32 gives at least the same model sooner"))
    lora = Lora(model, settings.lora, recipe.model.init or "", recipe.seed) if settings.lora else None
    torch.manual_seed(recipe.seed + devices.number)
    found, problems = devices.from_main(latest_checkpoint(run_dir))
    saved = load_state(found) if found is not None else None
    if found is not None and saved is not None:
        if not resume:
            raise InputError("The run folder holds checkpoints already", where=str(run_dir), fix="resume, or set another `output`")
        load_weights(found, run, saved, lora, accept_changes)
    nn.Module.to(model, devices.device).train()
    frozen = freeze(model, settings.freeze) if settings.freeze else None
    module = devices.wrap(LossModule(model, settings, run.objective), model)
    optimiser = make_optimiser(model, recipe.optimiser)
    ema = Ema(model, settings.ema) if settings.ema else None
    best = BestScore(recipe.stopping)
    counters = {"tokens": 0, "examples": 0, "too_long": 0, "cut": 0}
    first_step, averages = 0, {}
    if saved is not None:
        restore(saved, optimiser, ema, devices, recipe.seed)
        first_step, counters, averages = saved.step, dict(saved.counters), saved.averages
        best.load_state_dict(averages.get("best", {}))
        del saved  # as large as the optimiser
    tasks = run.tasks
    tracked = averages.get("tracker")
    with Tracker(recipe, tasks, model, devices.device, first_step, tracked, devices.processes) as progress:
        for problem in problems:
            progress.say(f"warning: not resumed from {problem}")
        if devices.main:
            (run_dir / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        if found is not None:
            progress.say(f"resumed from {found.name}")
            for change in run.provenance.get("recipe_changes", []):
                progress.say(f"warning: the recipe was changed after step {change['step']}: {'; '.join(change['changes'])}")
        else:
            progress.say(f"{parameter_count(model) / 1e6:.1f} M parameters, {len(tasks)} tasks, {devices.sentence()}")
        if frozen:
            progress.say(frozen.sentence())
        if lora:
            progress.say(lora.sentence())
        state = RunState(optimiser, counters, ema, lora, best, progress)
        return _run_steps(run, state, module, devices, first_step, validate)


def _run_steps(run: Run, state: RunState, module: nn.Module, devices: Devices, first_step: int, validate: Validate | None) -> Path:
    """The steps from ``first_step`` on, and the final checkpoint."""
    recipe, settings, model, progress = run.recipe, run.recipe.training, run.model, state.progress
    encoder = Encoder(run.tokenizer)
    index = {task: number for number, task in enumerate(run.tasks)}

    def observe(losses: torch.Tensor, part: PackedBatch | FlatBatch) -> None:
        if isinstance(part, FlatBatch):
            places = torch.tensor([index[task] for task in part.tasks])
            progress.task_losses.add(losses, places.repeat_interleave(torch.tensor([n for _, n in part.lengths])))

    done = first_step
    maker = StepMaker(recipe, run.mixture, run.stream, encoder, model.config.decoder_start_token_id, devices.share, run.denoising)
    with Loader(maker, first_step, settings.steps, settings.workers) as loader, Interrupts() as interrupts:
        batches = iter(loader)
        for step in range(first_step, settings.steps):
            with progress.waiting():
                batch = next(batches)
            rate = learning_rate(recipe.optimiser, step, settings.steps)
            set_learning_rate(state.optimiser, rate)
            with memory_errors_explained(recipe, step):
                if run.objective:
                    batch = run.objective.reweigh(module, batch, devices)
                share = accumulate(module, batch, devices, observe)
                norm = devices.clip(model, recipe.optimiser.clip)
            (loss,) = devices.total(share)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise RunError(
                    f"The loss is {loss} and the gradient norm {norm} at step {step + 1}",
                    where=f"{recipe.run_dir}; examples at positions {step * settings.batch} to {(step + 1) * settings.batch - 1}",
                    fix="lower optimiser.learning_rate; the last checkpoint is untouched and the run resumes from it",
                )
            with memory_errors_explained(recipe, step):
                state.optimiser.step()
            state.optimiser.zero_grad(set_to_none=True)
            if state.ema:
                state.ema.update()

            done = step + 1
            for key in state.counters:
                state.counters[key] += getattr(batch.whole, key)
            work = sum((Work.of_batch(part) for part in batch.batches), Work())
            progress.step(share, batch.tokens, batch.slots, batch.examples, batch.task_tokens, work)
            if done % settings.log_every == 0 or done == settings.steps:
                parts = run.objective.parts(devices, batch.whole.weight) if run.objective else {}
                progress.log(done, norm, rate, parts)
            if settings.validate_every and (done % settings.validate_every == 0 or done == settings.steps):
                with progress.paused(), state.ema.swap() if state.ema else nullcontext():
                    record = _validate(run, encoder, module, devices, progress, done, validate)
                if recipe.stopping.watched and _stops(run, state, devices, done, record):
                    break
            asked = devices.any(interrupts.asked is not None)
            if asked or (done % settings.checkpoint_every == 0 and done < settings.steps):
                with progress.paused():
                    save(run, state, devices, done)
            if asked:
                progress.say(f"saved {checkpoint_path(recipe.run_dir, done).name}; the same command goes on from there")
                devices.wait()
                interrupts.stop()

    with progress.paused():
        save(run, state, devices, done)
        with state.ema.swap() if state.ema else nullcontext():
            final = save_final(run, state, devices, done)
    if recipe.stopping.keep_best and state.best.step is not None:
        progress.say(f"{state.best.sentence()}: {checkpoint_path(recipe.run_dir, state.best.step)}")
    progress.say(f"done: {final}")
    return final


def _stops(run: Run, state: RunState, devices: Devices, step: int, record: dict[str, Any]) -> bool:
    """Whether the run is to end after this validation; a better score than all before is saved where the recipe says so."""
    verdict = state.best.update(step, record)
    if verdict.improved and run.recipe.stopping.keep_best:
        with state.progress.paused():
            save(run, state, devices, step)
    if verdict.stop:
        state.progress.say(f"stopped early: {state.best.sentence()}")
    return verdict.stop


def _validate(
    run: Run,
    encoder: Encoder,
    module: nn.Module,
    devices: Devices,
    progress: Tracker,
    step: int,
    callback: Validate | None,
) -> dict[str, Any]:
    """Losses of the held-out examples and the callback's scores; returns the record that was logged, the same in every process."""
    losses: dict[str, float] = {}
    record: dict[str, Any] = {}
    for task, examples in run.validation.items():
        try:
            if examples:
                losses[task] = validation_loss(module, run.model, examples, encoder, run.recipe, devices)
        except RunError as error:
            progress.say(f"warning: no validation loss of {task}: {error.what}")
    for task, corrupted in run.denoising.validation.items() if run.denoising else ():
        losses[task] = tokenised_loss(module, run.model, corrupted, encoder.pad, run.recipe, devices)
    scores: dict[str, float] = {}
    if callback:
        with gathered(module):
            scores = devices.from_main(callback(run.model, step))
    run.model.train()
    if losses:
        mean = sum(losses.values()) / len(losses)
        shown = ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items())
        progress.say(f"step {step}: validation loss {mean:.4f} ({shown})")
        record = {"validation_loss": mean, "validation_losses": losses}
    if losses or scores:
        record = {"step": step, **record, "scores": scores}
        progress.record(record)
    if scores:
        progress.say(f"step {step}: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return record
