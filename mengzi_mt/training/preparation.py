"""A recipe's prepared examples: where they are to lie, and the stream that training reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mengzi_mt.config import Recipe
from mengzi_mt.data.mixture import Mixture
from mengzi_mt.data.prepared import PreparedTask, TaskPlan, default_root, plan_tasks, read_manifest
from mengzi_mt.data.stream import ExampleStream, OnTheFly, Prepared
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.run import Run
from mengzi_mt.training.setup import make_tokenizer, read_mixture


def set_up_data(recipe: Recipe, source: DataSource) -> tuple[Mixture, PreTrainedTokenizerBase]:
    """The data half of :func:`mengzi_mt.training.setup.set_up`: training rows, templates and tokenizer, no model.

    Raises:
        InputError: as there.
    """
    mixture = read_mixture(recipe, source)
    return mixture, make_tokenizer(recipe, mixture)


def prepared_root(recipe: Recipe) -> Path:
    """The folder of prepared examples."""
    return Path(recipe.data.prepared_dir) if recipe.data.prepared_dir else default_root()


def recipe_plans(recipe: Recipe, source: DataSource, mixture: Mixture, tokenizer: PreTrainedTokenizerBase) -> list[TaskPlan]:
    """Where each task's prepared examples lie, or are to be made."""
    limits = Limits(recipe.lengths.max_input, recipe.lengths.max_target)
    return plan_tasks(mixture.pools, source, tokenizer, limits, prepared_root(recipe))


def with_stream(run: Run, source: DataSource) -> Run:
    """The run, reading prepared examples where all of its mixture is prepared."""
    return replace(run, stream=example_stream(run.recipe, source, run.mixture, run.tokenizer))


def example_stream(recipe: Recipe, source: DataSource, mixture: Mixture, tokenizer: PreTrainedTokenizerBase) -> ExampleStream:
    """Prepared examples where every task of the mixture is prepared as it stands, the same made on the fly where not.

    Choices that vary are decided by an example's position, so they are always made on the fly.
    """
    limits = Limits(recipe.lengths.max_input, recipe.lengths.max_target)
    if recipe.mixture.vary_choices:
        return OnTheFly(mixture, Encoder(tokenizer), limits)
    plans = recipe_plans(recipe, source, mixture, tokenizer)
    manifests = [read_manifest(plan) for plan in plans]
    prepared = [PreparedTask(plan, manifest) for plan, manifest in zip(plans, manifests, strict=True) if manifest is not None]
    if len(prepared) == len(plans):
        return Prepared(mixture, prepared)
    return OnTheFly(mixture, Encoder(tokenizer), limits)
