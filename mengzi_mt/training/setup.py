"""From a recipe to a run: rows are read, pools made, tokenizer and model loaded or built."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.config import ModelSettings, Recipe
from mengzi_mt.data.denoising import Denoising, make_denoising
from mengzi_mt.data.examples import TextExample, bound_templates, render_example, select_templates
from mengzi_mt.data.mixture import Mixture, Pool, make_pool, mixing_rates
from mengzi_mt.data.sampling import Stage
from mengzi_mt.data.stream import OnTheFly
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.data.view import RowFilter, load_view
from mengzi_mt.errors import InputError
from mengzi_mt.models.fake_int8 import fake_int8
from mengzi_mt.models.from_encoder import start_from_encoder
from mengzi_mt.models.t5 import build_model, load_model
from mengzi_mt.models.tokenizer import load_tokenizer, train_tokenizer
from mengzi_mt.prompts.template import Template
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, Rows
from mengzi_mt.tasks.task import Task
from mengzi_mt.training.card import research_only
from mengzi_mt.training.run import Run

TRAIN_TOKENIZER = "train"
"""``model.tokenizer: train`` trains a tokenizer on the mixture's own training texts."""
MEASURED = 2_048
"""Examples of a kind whose lengths say what a rate of tokens means in examples."""


def set_up(recipe: Recipe, source: DataSource) -> Run:
    """Read the data and make the model of a recipe.

    Raises:
        InputError: missing files, a bad row, a view that does not fit, a zero-shot task in the mixture, a tokenizer that
            does not fit the model.
    """
    tasks = [get_task(name) for name in recipe.mixture.tasks]
    refuse_zero_shot(tasks, recipe)
    row_filter = RowFilter(load_view(Path(recipe.data.exclude)) if recipe.data.exclude else None, source)
    pools, validation, data = [], {}, {}
    for task in tasks:
        pool, rows = training_pool(task, recipe, row_filter)
        pools.append(pool)
        templates = list(pool.templates)
        held_out = row_filter.load_rows(task, recipe.data.validation_split) if recipe.data.validation_rows else None
        validation[task.name] = validation_examples(task, held_out, templates, recipe.data.validation_rows)
        data[task.name] = describe_rows(rows, task) | {"excluded": row_filter.account(task)}
        warn(row_filter.warning(task))
    mixture = make_mixture(pools, recipe)
    tokenizer = make_tokenizer(recipe, mixture)
    mixture, denoising = with_denoising(recipe, mixture, tokenizer)
    terms = data | ({"the corpus": {}} if denoising else {})
    return Run(
        recipe=recipe,
        model=make_model(recipe, tokenizer),
        tokenizer=tokenizer,
        mixture=mixture,
        validation=validation,
        denoising=denoising,
        provenance={
            "data": data,
            "denoising": dict(denoising.provenance) if denoising else None,
            "research_only": research_only(terms),
            "data_source": source.kind,
            "data_map": source.data_map.name if source.data_map else None,
            "templates": {task.name: bound_templates(task).content_hash() for task in tasks},
            "mixture_stages": [
                {"from_step": step, "rates": dict(stage.rates)}
                for step, stage in zip(recipe.stage_starts(), mixture.stages, strict=True)
            ],
        },
    )


def training_pool(task: Task, recipe: Recipe, row_filter: RowFilter) -> tuple[Pool, Rows]:
    """A task's training rows and templates as the recipe chooses them, and what was read."""
    rows = row_filter.load_rows(task, recipe.data.train_split, recipe.mixture.rows_per_task)
    return make_pool(task, rows.rows, training_templates(task, recipe)), rows


def make_mixture(pools: Sequence[Pool], recipe: Recipe, denoising: Denoising | None = None) -> Mixture:
    """The recipe's mixture of these pools, in its stages."""
    return Mixture(pools, mixture_stages(pools, recipe, denoising), recipe.seed, recipe.mixture.vary_choices)


def with_denoising(recipe: Recipe, mixture: Mixture, tokenizer: PreTrainedTokenizerBase) -> tuple[Mixture, Denoising | None]:
    """The recipe's denoising, and the mixture in the positions that it leaves.

    A rate of tokens becomes one of examples by the mean lengths of the first :data:`MEASURED` examples of either kind.

    Raises:
        InputError: no such corpus, or one that does not fit the recipe.
    """
    settings = recipe.denoising
    if settings is None:
        return mixture, None
    denoising = make_denoising(settings, tokenizer, recipe.seed, recipe.data.validation_rows)
    if not mixture.pools:
        return mixture, denoising
    if settings.rate_of == "tokens":
        limits = Limits(recipe.lengths.max_input, recipe.lengths.max_target)
        told = OnTheFly(mixture, Encoder(tokenizer), limits).examples(0, MEASURED)
        long, short = (mean_tokens(examples) for examples in (denoising.stream.examples(0, MEASURED), told))
        share = settings.rate * short / (settings.rate * short + (1 - settings.rate) * long)
        denoising = replace(denoising, share=share, provenance={**denoising.provenance, "share": share})
    return make_mixture(mixture.pools, recipe, denoising), denoising


def mean_tokens(examples: Sequence[TokenizedExample | None]) -> float:
    """Tokens of both sides of the examples that are there.

    Raises:
        InputError: there is none.
    """
    sizes = [len(example.inputs) + len(example.targets) for example in examples if example is not None]
    if not sizes:
        raise InputError("No example of the mixture fits the limits", where="lengths", fix="raise the limits")
    return sum(sizes) / len(sizes)


def read_mixture(recipe: Recipe, source: DataSource) -> Mixture:
    """The mixture of a recipe alone, without model and tokenizer: for measuring it and for preparing it.

    Raises:
        InputError: as :func:`set_up`.
    """
    tasks = [get_task(name) for name in recipe.mixture.tasks]
    refuse_zero_shot(tasks, recipe)
    row_filter = RowFilter(load_view(Path(recipe.data.exclude)) if recipe.data.exclude else None, source)
    pools = []
    for task in tasks:
        pools.append(training_pool(task, recipe, row_filter)[0])
        warn(row_filter.warning(task))
    return make_mixture(pools, recipe)


def mixture_stages(pools: Sequence[Pool], recipe: Recipe, denoising: Denoising | None = None) -> list[Stage]:
    """The stages of a recipe's mixture in its positions: step ``n`` begins at ``n`` times ``training.batch``, less denoising's."""
    settings, batch = recipe.mixture, recipe.training.batch
    sizes = {pool.task.name: len(pool.rows) for pool in pools}
    templates = {pool.task.name: len(pool.templates) for pool in pools}
    staged = [settings.at_stage(number) for number in range(len(settings.stages))] or [settings]
    return [
        Stage(mixing_rates(sizes, stage, templates), step * batch - (denoising.before(step * batch) if denoising else 0))
        for step, stage in zip(recipe.stage_starts(), staged, strict=True)
    ]


def warn(message: str | None) -> None:
    """One line on standard error, where there is something to say; of several processes only the first says it."""
    if message and os.environ.get("RANK", "0") == "0":
        print(f"warning: {message}", file=sys.stderr, flush=True)


def refuse_zero_shot(tasks: list[Task], recipe: Recipe) -> None:
    """A zero-shot task in a training mixture needs the recipe's explicit word."""
    named = [task.name for task in tasks if task.role == "zero_shot"]
    if named and not recipe.mixture.allow_zero_shot_tasks:
        raise InputError(
            f"The mixture trains on zero-shot tasks: {', '.join(named)}",
            where=f"recipe {recipe.name!r}, key mixture.tasks",
            fix="take them out, or set mixture.allow_zero_shot_tasks: true (every report of the checkpoint then says so)",
        )


def training_templates(task: Task, recipe: Recipe) -> list[Template]:
    """The templates that the recipe chooses for a task."""
    names = recipe.mixture.templates.get(task.name)
    templates = select_templates(task, list(names) if names else None)
    if recipe.mixture.original_only:
        templates = [template for template in templates if template.metadata.original_task]
    return templates[: recipe.mixture.templates_per_task]


def validation_examples(task: Task, rows: Rows | None, templates: list[Template], limit: int) -> list[TextExample]:
    """At most ``limit`` held-out examples, each through one of the templates in turn.

    They are drawn by hash: many files are sorted by label, so their first rows would all be of one class.
    """
    if rows is None:
        return []
    drawn = sorted(rows.rows, key=lambda row: hashlib.sha256(row.row_id.encode()).digest())[:limit]
    pool = make_pool(task, drawn, templates)
    examples = []
    for number, row in enumerate(pool.rows):
        usable = pool.templates_for(row)
        examples.append(render_example(task, usable[number % len(usable)], row))
    return examples


def describe_rows(rows: Rows, task: Task) -> dict[str, Any]:
    """What the manifest says of a task's training rows; training on an official test split is flagged."""
    official = rows.provenance.get("official_split", [rows.split])
    return {
        "rows": len(rows),
        "read": rows.counts.read,
        "skipped": rows.counts.skipped,
        "bad": rows.counts.bad,
        "answer_offsets_repaired": rows.counts.repaired,
        "task_version": task.version,
        "licence": task.licence.name,
        "research_only": task.licence.research_only,
        **rows.provenance,
        "trained_on_official_test": any(split.startswith("test") for split in official),
    }


def make_tokenizer(recipe: Recipe, mixture: Mixture) -> PreTrainedTokenizerBase:
    """The recipe's tokenizer: a named one, the initial checkpoint's, or one trained on the mixture's texts."""
    name = recipe.model.tokenizer or recipe.model.init
    assert name is not None
    if name != TRAIN_TOKENIZER:
        return load_tokenizer(resolve(name))
    folder = recipe.run_dir / "tokenizer"
    if (folder / "tokenizer.json").is_file():
        return load_tokenizer(folder)
    texts = (
        text
        for pool in mixture.pools
        for row in pool.rows
        for template in pool.templates_for(row)[:1]
        for example in [render_example(pool.task, template, row)]
        for text in (example.inputs, example.targets)
    )
    return train_tokenizer(
        texts, folder, _shape_vocabulary(recipe.model), character_coverage=0.9999, seed=recipe.seed, partial=True
    )


def _shape_vocabulary(model: ModelSettings) -> int:
    from mengzi_mt.models.shapes import SHAPES

    return SHAPES[model.shape or "micro"].vocabulary


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """The recipe's model, checked against the tokenizer."""
    settings = recipe.model
    if settings.shape:
        built = build_model(settings.shape, len(tokenizer), settings.dropout, recipe.seed)
        if settings.encoder:
            start_from_encoder(built, resolve(settings.encoder), tokenizer)
        return _rounding(built, recipe)
    assert settings.init is not None
    model = load_model(resolve(settings.init), dropout=settings.dropout)
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"The tokenizer has {len(tokenizer):,} pieces, the model only {model.config.vocab_size:,}",
            where="model.init, model.tokenizer",
            fix="use the tokenizer that belongs to the checkpoint",
        )
    return _rounding(model, recipe)


def _rounding(model: T5ForConditionalGeneration, recipe: Recipe) -> T5ForConditionalGeneration:
    if recipe.training.fake_int8:
        fake_int8(model)
    return model
