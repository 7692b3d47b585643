"""Distilling a T5: a training run in which a teacher has a say, by its states, its distributions, or what it writes.

The run is :func:`mengzi_mt.training.loop.train`'s: it resumes, listens to signals, and leaves plain checkpoints.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.compression.distil_objective import Distillation
from mengzi_mt.compression.distil_pseudo_labels import WithPseudoLabels, read_pseudo_labels, write_pseudo_labels
from mengzi_mt.compression.distil_recipe import DistilRecipe
from mengzi_mt.compression.distil_students import t5_of_layers
from mengzi_mt.data.mixture import Mixture
from mengzi_mt.data.token_shards import pieces_hash
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.models.t5 import load_model, parameter_count
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.checkpoint import read_manifest, verify_checkpoint
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.loop import train
from mengzi_mt.training.lora import weights_hash
from mengzi_mt.training.preparation import with_stream
from mengzi_mt.training.run import Run
from mengzi_mt.training.saving import FINAL, differences
from mengzi_mt.training.setup import read_mixture, set_up

_PSEUDO_SEED = 1
"""Added to the recipe's seed: the pseudo-labelled rows are not to come in the order of the others."""


def distil(recipe: DistilRecipe, source: DataSource, *, resume: bool = True, accept_changes: bool = False) -> Path:
    """Train the assistants, if there are some, and the student; returns the student's final checkpoint.

    Args:
        recipe: of the whole chain.
        source: of the mixture's rows.
        resume: whether to continue interrupted runs; without, existing ones are refused.
        accept_changes: continue the student's run with a recipe that differs.

    Raises:
        InputError: a teacher that does not fit the student (tokenizer, heads, layers), or as training raises it.
        RunError: as training raises it.
    """
    *assistants, last = recipe.chain()
    for assistant in assistants:
        if not _is_done(assistant):
            _say(f"{assistant.name}: taught by {assistant.teacher.model}")
            _distil_one(assistant, source, resume=resume, accept_changes=False)
    return _distil_one(last, source, resume=resume, accept_changes=accept_changes)


def _distil_one(recipe: DistilRecipe, source: DataSource, *, resume: bool, accept_changes: bool) -> Path:
    devices = Devices(recipe.training)
    with devices.failures_explained():
        with devices.main_first() if recipe.pseudo_labels or source.kind == "hub" else nullcontext():
            run = set_up_distillation(recipe, source, devices)
        return train(run, resume=resume, accept_changes=accept_changes)


def _is_done(recipe: DistilRecipe) -> bool:
    """Whether the run's final checkpoint is there, whole and of this recipe."""
    final = recipe.run_dir / FINAL
    try:
        verify_checkpoint(final)
    except InputError:
        return False
    return not differences(read_manifest(final).get("recipe"), recipe.model_dump(mode="json"))


def set_up_distillation(recipe: DistilRecipe, source: DataSource, devices: Devices) -> Run:
    """The run of one student of one teacher, whose ``chain`` has no assistants left.

    Raises:
        InputError: as :func:`distil`.
    """
    teacher_place = resolve(recipe.teacher.model)
    teacher, teacher_tokenizer = load_model(teacher_place), load_tokenizer(teacher_place)
    teacher_hash = weights_hash(teacher)
    run = set_up(recipe, source)
    check_tokenizers(recipe, teacher_tokenizer, run.tokenizer)
    student, start = run.model, recipe.student
    if start.layers:
        student = t5_of_layers(run.model, start.layers, start.decoder_layers)
    about: dict[str, Any] = {
        "teacher": {"model": recipe.teacher.model, "weights": teacher_hash, "parameters": parameter_count(teacher)},
        "student": f"random weights of the shape {start.shape}" if start.shape else _start(recipe),
    }
    run = with_stream(replace(run, model=student), source)
    if recipe.pseudo_labels:
        made_from = {"teacher": teacher_hash, "data_source": source.kind}
        run = _with_pseudo_labels(run, recipe, source, (teacher, teacher_tokenizer), made_from, devices)
        about["pseudo_labels"] = {"share": recipe.pseudo_labels.share, "split": recipe.pseudo_labels.split}
    objective = None
    if recipe.losses.compares:
        objective = Distillation(teacher, student, recipe.losses, recipe.teacher.precision, len(run.tokenizer))
    return replace(run, objective=objective, provenance={**run.provenance, "distillation": about})


def _start(recipe: DistilRecipe) -> str:
    start = recipe.student
    whose = start.init or recipe.teacher.model
    if not start.layers:
        return f"the weights of {whose}"
    return f"layers {start.layers} (decoder {start.decoder_layers or start.layers}) of {whose}"


def check_tokenizers(recipe: DistilRecipe, teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """See that teacher and student cut texts alike, where they are compared token by token.

    Raises:
        InputError: they do not. There is no map between two vocabularies that would help: the same text becomes other pieces of
            other lengths, so neither the rows of relations nor the distributions at a position belong together.
    """
    if recipe.losses.compares and pieces_hash(teacher) != pieces_hash(student):
        raise InputError(
            "Teacher and student have different tokenizers, so their tokens cannot be compared one by one",
            where=f"teacher.model: {recipe.teacher.model}, student: {recipe.model.tokenizer}",
            fix="leave student.tokenizer out; or learn from the teacher's answers alone, which are text: give `pseudo_labels`, "
            "and set losses.logits: null, losses.relations: null",
        )


def _with_pseudo_labels(
    run: Run,
    recipe: DistilRecipe,
    source: DataSource,
    teacher: tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase],
    made_from: dict[str, Any],
    devices: Devices,
) -> Run:
    """The run with a share of its examples answered by the teacher, who answers what is not yet answered."""
    settings, lengths = recipe.pseudo_labels, recipe.lengths
    assert settings is not None
    path = recipe.pseudo_label_file
    if devices.main:
        mixture = _unlabelled_mixture(recipe, source)
        model, tokenizer = teacher
        nn.Module.to(model, devices.device)
        generator = Generator(
            model, tokenizer,
            max_input=lengths.max_input, max_new_tokens=lengths.max_target, batch_size=settings.batch_size,
            precision=recipe.teacher.precision, beams=settings.beams, length_penalty=settings.length_penalty,
        )  # fmt: skip
        made_from = made_from | {
            "split": settings.split, "rows": {pool.task.name: len(pool.rows) for pool in mixture.pools}, "seed": recipe.seed,
            "beams": settings.beams, "length_penalty": settings.length_penalty,
            "lengths": [lengths.max_input, lengths.max_target], "mixture": recipe.mixture.model_dump(mode="json"),
            "templates": run.provenance["templates"],
        }  # fmt: skip
        write_pseudo_labels(
            path, mixture, settings.examples, generator, made_from, lambda done, of: _say(f"{done:,} of {of:,} pseudo-labels")
        )
    assert run.stream is not None
    limits, examples = Limits(lengths.max_input, lengths.max_target), read_pseudo_labels(path)[: settings.examples]
    return replace(run, stream=WithPseudoLabels(run.stream, examples, settings.share, Encoder(run.tokenizer), limits))


def _unlabelled_mixture(recipe: DistilRecipe, source: DataSource) -> Mixture:
    """The mixture over the rows to answer, in an order of its own."""
    assert recipe.pseudo_labels is not None
    data = recipe.data.model_copy(update={"train_split": recipe.pseudo_labels.split})
    return read_mixture(recipe.model_copy(update={"data": data, "seed": recipe.seed + _PSEUDO_SEED}), source)


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
