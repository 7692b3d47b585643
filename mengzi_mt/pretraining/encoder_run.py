"""From an encoder's recipe to all that its loop works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mengzi_mt.data.token_shards import TokenCorpus, check_tokenizer, open_corpus
from mengzi_mt.data.windows import WindowOrder, held_out
from mengzi_mt.errors import InputError
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.pretraining.encoder_batches import EncoderStep, EncoderStepMaker, make_step
from mengzi_mt.pretraining.encoder_examples import SPECIAL, EncoderIds, EncoderStream, untagged
from mengzi_mt.pretraining.encoder_losses import Guide, objective_weights
from mengzi_mt.pretraining.encoder_models import POSITIONS, ObjectiveHeads, build_encoder, give_roles, load_encoder
from mengzi_mt.pretraining.encoder_recipe import EncoderRecipe

_VALIDATION_SEED = 20_240_617
"""Held-out windows are cut and masked alike in every run, so that runs can be compared."""


@dataclass
class EncoderRun:
    """What is trained on what.

    Attributes:
        labels: names of the tags that each head predicts, by number.
        maker: makes the batch of a step.
        validation: held-out windows; None where no document is held out.
        guide: a teacher, whose weights stand for those of the objectives.
    """

    recipe: EncoderRecipe
    model: PreTrainedModel
    heads: ObjectiveHeads
    tokenizer: PreTrainedTokenizerBase
    corpus: TokenCorpus
    labels: dict[str, list[str]]
    maker: EncoderStepMaker
    validation: EncoderStep | None
    guide: Guide | None = None

    @property
    def names(self) -> list[str]:
        """What the loss is made of, as far as a run keeps it apart."""
        return self.recipe.objectives.observed if self.guide is None else list(self.guide.weights)

    def weights(self, step: int) -> dict[str, float]:
        """Of each of them at a step (the first is 0)."""
        if self.guide is not None:
            return self.guide.weights
        return objective_weights(self.recipe.objectives, step, self.recipe.training.steps)


def set_up_encoder(recipe: EncoderRecipe) -> EncoderRun:
    """Open the corpus, build the model.

    Raises:
        InputError: no such corpus, tokenizer or model; a corpus without the tags that are to be predicted.
    """
    corpus, tokenizer = open_corpus(Path(recipe.corpus)), load_tokenizer(recipe.model.tokenizer)
    check_tokenizer(corpus, tokenizer)
    objectives, settings = recipe.objectives, recipe.training
    tags = corpus.manifest.get("tags")
    if objectives.needs_tags and tags is None:
        raise untagged(corpus)
    give_roles(tokenizer)
    if recipe.model.shape:
        model = build_encoder(recipe.model.shape, tokenizer, recipe.model.architecture, recipe.model.dropout, recipe.seed)
    else:
        model = load_encoder(str(recipe.model.init), tokenizer, recipe.model.dropout)
    longest = int(getattr(model.config, "max_position_embeddings", POSITIONS))
    if settings.window > longest:
        raise InputError(f"The model reads at most {longest} tokens", where="training.window", fix="set a smaller window")
    labels: dict[str, list[str]] = {name: list(tags[name]) for name in ("pos", "ner") if tags and name in objectives.names}
    sizes: dict[str, int] = {name: len(found) for name, found in labels.items()}
    heads = ObjectiveHeads(model.config.hidden_size, sizes, "order" in objectives.names, recipe.seed)
    kept = held_out(corpus, settings.held_out)
    ids = EncoderIds.of(tokenizer)
    order = WindowOrder(corpus, ~kept, settings.window - SPECIAL, recipe.seed)
    maker = EncoderStepMaker(EncoderStream(order, ids, objectives, recipe.seed), settings.batch, settings.micro_batch_tokens)
    return EncoderRun(recipe, model, heads, tokenizer, corpus, labels, maker, _validation(recipe, corpus, kept, ids))


def _validation(recipe: EncoderRecipe, corpus: TokenCorpus, kept: np.ndarray, ids: EncoderIds) -> EncoderStep | None:
    settings = recipe.training
    if not settings.validate_every or not (kept & (corpus.lengths >= 2)).any():
        return None
    order = WindowOrder(corpus, kept, settings.window - SPECIAL, _VALIDATION_SEED)
    stream = EncoderStream(order, ids, recipe.objectives, _VALIDATION_SEED)
    return make_step(stream.examples(0, min(order.count, settings.validation_windows)), settings.micro_batch_tokens, ids.pad)


def training_flops(run: EncoderRun, step: EncoderStep) -> float:
    """Floating-point operations of a step, forward and backward: products of matrices and attention, two a multiply-add."""
    config = run.model.config
    hidden, forward = config.hidden_size, 0.0
    inside = config.num_hidden_layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    tags = sum(len(found) for found in run.labels.values()) * hidden
    instance = run.recipe.objectives.instance
    passes = 1 + 2 * bool(instance.restores) + (2 / 3) * bool(instance.distance)  # two with gradients, two without
    for batch in step.batches:
        encoder = 2 * batch.tokens * inside + 4 * config.num_hidden_layers * hidden * batch.squares
        forward += passes * encoder + 2 * batch.tokens * tags
        forward += 2 * len(batch.restored) * hidden * (hidden + config.vocab_size)
    return 3 * forward
