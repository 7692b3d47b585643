"""The training loop, from a recipe to checkpoints. It reads from top to bottom as the run goes."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt import __version__
from mengzi_mt.config import Recipe, TrainingSettings, dump_recipe
from mengzi_mt.data.batch import PackedBatch
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.flat import FlatBatch
from mengzi_mt.data.mixture import Mixture
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError, RunError, first_line
from mengzi_mt.models.cross_entropy import LossSettings
from mengzi_mt.models.flat import flat_loss
from mengzi_mt.models.packed import packed_loss
from mengzi_mt.models.t5 import parameter_count
from mengzi_mt.training.batches import StepBatch, make_step_batch
from mengzi_mt.training.checkpoint import (
    TrainerState,
    checkpoint_path,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_checkpoint,
)
from mengzi_mt.training.optimisers import learning_rate, make_optimiser, set_learning_rate
from mengzi_mt.training.progress import Progress

Validate = Callable[[T5ForConditionalGeneration, int], dict[str, float]]
FINAL = "final"


@dataclass(frozen=True)
class Run:
    """Everything a training run is made of. ``provenance`` goes into every checkpoint's ``mengzi_mt.json``."""

    recipe: Recipe
    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    mixture: Mixture
    validation: dict[str, list[TextExample]]
    provenance: dict[str, Any]


def train(run: Run, *, resume: bool = True, validate: Validate | None = None) -> Path:
    """Train to the recipe's last step and return the final checkpoint's folder.

    A run whose folder holds checkpoints continues from the newest complete one, and gives the losses that an
    uninterrupted run gives: examples are a pure function of the step, and the random states are restored.

    Args:
        run: what to train on what.
        resume: whether to continue an interrupted run; without, an existing one is refused.
        validate: called with the model and the step after each validation; its scores are logged.

    Raises:
        RunError: a loss that is no number (the last good checkpoint stays), or a full disk.
        InputError: a run folder of another recipe.
    """
    recipe, settings, model = run.recipe, run.recipe.training, run.model
    run_dir = recipe.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    device = pick_device(settings.device)
    torch.manual_seed(recipe.seed)
    nn.Module.to(model, device).train()
    optimiser = make_optimiser(model, recipe.optimiser)
    encoder = Encoder(run.tokenizer)
    counters = {"tokens": 0, "examples": 0, "too_long": 0, "cut": 0}
    averages: dict[str, float] = {}
    first_step = 0

    found, problems = latest_checkpoint(run_dir)
    if found is not None:
        if not resume:
            raise InputError("The run folder holds checkpoints already", where=str(run_dir), fix="resume, or set another `output`")
        state = _restore(found, run, optimiser)
        first_step, counters, averages = state.step, dict(state.counters), state.averages
    progress = Progress(run_dir, settings.steps, first_step, averages)
    for problem in problems:
        progress.say(f"warning: not resumed from {problem}")
    if found is not None:
        progress.say(f"resumed from {found.name}")
    else:
        (run_dir / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        progress.say(f"{parameter_count(model) / 1e6:.1f} M parameters, {len(run.mixture.pools)} tasks, on {device}")

    start = model.config.decoder_start_token_id
    for step in range(first_step, settings.steps):
        examples = run.mixture.examples(step * settings.batch, (step + 1) * settings.batch)
        per_example = settings.loss_weighting == "example"
        batch = make_step_batch(examples, encoder, recipe.lengths, settings.micro_batch_tokens, start, per_example, settings.layout)
        rate = learning_rate(recipe.optimiser, step, settings.steps)
        set_learning_rate(optimiser, rate)
        loss = accumulate(model, batch, settings, device)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise RunError(
                f"The loss is {loss} and the gradient norm {norm} at step {step + 1}",
                where=f"{run_dir}; examples at positions {step * settings.batch} to {(step + 1) * settings.batch - 1}",
                fix="lower optimiser.learning_rate; the last checkpoint is untouched and the run resumes from it",
            )
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

        done = step + 1
        counters["tokens"] += batch.tokens
        counters["examples"] += sum(batch.examples.values())
        counters["too_long"] += batch.too_long
        counters["cut"] += batch.cut
        progress.step(loss, batch.tokens, batch.slots)
        if done % settings.log_every == 0 or done == settings.steps:
            progress.line(done, norm, rate)
        if settings.validate_every and (done % settings.validate_every == 0 or done == settings.steps):
            _validate(run, encoder, progress, done, device, validate)
        if done % settings.checkpoint_every == 0 and done < settings.steps:
            _save(run, optimiser, done, counters, progress)
            prune_checkpoints(run_dir, settings.keep_last)

    _save(run, optimiser, settings.steps, counters, progress)
    prune_checkpoints(run_dir, settings.keep_last)
    final = run_dir / FINAL
    save_checkpoint(final, model, run.tokenizer, _manifest(run, settings.steps, counters))
    progress.say(f"done: {final}")
    return final


def pick_device(name: str) -> torch.device:
    """The device of a recipe: ``auto`` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {name!r} cannot be used: {first_line(error)}", where="training.device") from error
    return device


def accumulate(model: T5ForConditionalGeneration, batch: StepBatch, settings: TrainingSettings, device: torch.device) -> float:
    """Gradients of the mean token loss over all micro-batches; returns that loss.

    Every micro-batch is divided by the target weight of the whole step, so the result is that of one big batch.
    """
    total = batch.weight
    loss = torch.zeros((), device=device)
    for part in batch.batches:
        mean = micro_batch_loss(model, part.to(device), settings)[0] / total
        mean.backward()
        loss += mean.detach()
    return float(loss)


def micro_batch_loss(
    model: T5ForConditionalGeneration, batch: PackedBatch | FlatBatch, settings: TrainingSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum of the token losses of one forward pass, and each token's cross-entropy, in the recipe's precision."""
    terms = LossSettings(settings.label_smoothing if model.training else 0.0, settings.z_loss if model.training else 0.0)
    with torch.autocast(batch.labels.device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
        if isinstance(batch, FlatBatch):
            return flat_loss(model, batch, terms, recompute=settings.recompute and model.training)
        return packed_loss(model, batch, terms)


@torch.no_grad()
def validation_loss(
    model: T5ForConditionalGeneration, examples: Sequence[TextExample], encoder: Encoder, recipe: Recipe, device: torch.device
) -> float:
    """Mean token loss of held-out examples, without dropout."""
    settings = recipe.training
    start = model.config.decoder_start_token_id
    batch = make_step_batch(examples, encoder, recipe.lengths, settings.micro_batch_tokens, start, layout=settings.layout)
    training, total = model.training, 0.0
    model.eval()
    for part in batch.batches:
        total += float(micro_batch_loss(model, part.to(device), settings)[1].sum())
    model.train(training)
    return total / sum(part.target_tokens for part in batch.batches)


def _validate(run: Run, encoder: Encoder, progress: Progress, step: int, device: torch.device, callback: Validate | None) -> None:
    losses: dict[str, float] = {}
    for task, examples in run.validation.items():
        try:
            if examples:
                losses[task] = validation_loss(run.model, examples, encoder, run.recipe, device)
        except RunError as error:
            progress.say(f"warning: no validation loss of {task}: {error.what}")
    scores = callback(run.model, step) if callback else {}
    run.model.train()
    if losses:
        mean = sum(losses.values()) / len(losses)
        shown = ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items())
        progress.say(f"step {step}: validation loss {mean:.4f} ({shown})")
        progress.write({"step": step, "validation_loss": mean, "validation_losses": losses, "scores": scores})
    if scores:
        progress.say(f"step {step}: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))


def _save(run: Run, optimiser: torch.optim.Optimizer, step: int, counters: dict[str, int], progress: Progress) -> None:
    rng: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state_all()
    recipe = run.recipe.model_dump(mode="json")
    state = TrainerState(step, optimiser.state_dict(), rng, dict(counters), recipe, progress.averages())
    folder = checkpoint_path(run.recipe.run_dir, step)
    save_checkpoint(folder, run.model, run.tokenizer, _manifest(run, step, counters), state)


def _manifest(run: Run, step: int, counters: dict[str, int]) -> dict[str, Any]:
    import transformers

    zero_shot = [pool.task.name for pool in run.mixture.pools if pool.task.role == "zero_shot"]
    return {
        "format": "mengzi-mt/checkpoint/1",
        "step": step,
        "recipe": run.recipe.model_dump(mode="json"),
        "parameters": parameter_count(run.model),
        "counters": counters,
        "mixture": {pool.task.name: rate for pool, rate in zip(run.mixture.pools, run.mixture.rates, strict=True)},
        "examples": run.mixture.counts(0, step * run.recipe.training.batch),
        "zero_shot_tasks_trained_on": zero_shot,
        "versions": {
            "mengzi_mt": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **run.provenance,
    }


_FREE_TO_CHANGE = {"log_every", "validate_every", "checkpoint_every", "keep_last", "device"}


def _restore(folder: Path, run: Run, optimiser: torch.optim.Optimizer) -> TrainerState:
    """Load weights, optimiser and random states, and return the state; refuse the checkpoint of another recipe."""
    from safetensors.torch import load_file

    from mengzi_mt.models.t5 import WEIGHTS_FILE

    state = load_state(folder)
    different = _differences(_with_defaults(state.recipe), run.recipe.model_dump(mode="json"))
    if different:
        raise InputError(
            "The run folder holds checkpoints of another recipe: " + "; ".join(different),
            where=str(folder.parent),
            fix="restore these values, or set another `output`",
        )
    missing, unexpected = run.model.load_state_dict(load_file(str(folder / WEIGHTS_FILE)), strict=False)
    tied = [key for key in missing if "embed_tokens" not in key and key != "lm_head.weight"]
    if tied or unexpected:
        raise InputError(f"The checkpoint's weights do not fit: {tied[:1] or unexpected[:1]}", where=str(folder))
    optimiser.load_state_dict(state.optimiser)
    torch.set_rng_state(state.rng["cpu"])
    if "cuda" in state.rng and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state.rng["cuda"])
    return state


def _with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """A saved recipe with the keys that were added since it was saved, at their defaults."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValueError:
        return recipe


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            place = f"{path}.{key}" if path else key
            if place.removeprefix("training.") in _FREE_TO_CHANGE or place in ("description", "output"):
                continue
            found += _differences(old.get(key), new.get(key), place)
        return found
    return [] if old == new else [f"{path}: {old!r} there, {new!r} here"]
