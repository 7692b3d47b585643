"""Distilling a BERT or RoBERTa on a corpus: its pretraining's run with a teacher's relations as what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mengzi_mt.compression.distil_recipe import EncoderDistilRecipe, RelationSettings
from mengzi_mt.compression.distil_relations import (
    Attending,
    Layout,
    Projections,
    chosen_layer,
    recorded,
    relation_heads,
    relations_apart,
)
from mengzi_mt.compression.distil_students import encoder_of_layers
from mengzi_mt.data.token_shards import pieces_hash
from mengzi_mt.errors import InputError
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.pretraining.encoder_batches import EncoderBatch
from mengzi_mt.pretraining.encoder_loop import train_encoder
from mengzi_mt.pretraining.encoder_losses import Prediction
from mengzi_mt.pretraining.encoder_models import give_roles, load_encoder
from mengzi_mt.pretraining.encoder_run import EncoderRun, set_up_encoder

RELATIONS = "relations"


def distil_encoder(recipe: EncoderDistilRecipe, *, resume: bool = True) -> Path:
    """Train the student; returns its final checkpoint.

    Raises:
        InputError: a teacher with another tokenizer than the corpus, or whose shape does not fit; or as training raises it.
        RunError: as training raises it.
    """
    return train_encoder(set_up_encoder_distillation(recipe), resume=resume)


def set_up_encoder_distillation(recipe: EncoderDistilRecipe) -> EncoderRun:
    """The pretraining run of the student, with its teacher.

    Raises:
        InputError: as :func:`distil_encoder`.
    """
    run = set_up_encoder(recipe)
    tokenizer = load_tokenizer(recipe.teacher.model)
    give_roles(tokenizer)
    if pieces_hash(tokenizer) != pieces_hash(run.tokenizer):
        raise InputError(
            "Teacher and student have different tokenizers, so their tokens cannot be compared one by one",
            where=f"teacher.model: {recipe.teacher.model}, student: {recipe.model.tokenizer}",
            fix="take a teacher of the corpus's tokenizer, or build a corpus with the teacher's",
        )
    teacher = load_encoder(recipe.teacher.model, tokenizer)
    student = encoder_of_layers(run.model, recipe.student.layers) if recipe.student.layers else run.model
    guide = RelationGuide(teacher, student, recipe.relations, recipe.teacher.precision, recipe.mlm)
    return replace(run, model=student, guide=guide)


class RelationGuide:
    """A teacher's relations (:class:`mengzi_mt.pretraining.encoder_losses.Guide`).

    Args:
        teacher: is put into evaluation mode.
        student: to check the shapes.
        settings: of the relations.
        precision: of the teacher's products.
        mlm: weight of masked language modelling beside; at 0 texts are read unmasked, as in MiniLM.

    Raises:
        InputError: shapes whose relations cannot be matched.
    """

    def __init__(
        self, teacher: PreTrainedModel, student: PreTrainedModel, settings: RelationSettings, precision: str, mlm: float
    ) -> None:
        self.teacher: Any = teacher.eval().requires_grad_(False)
        self.settings, self.bfloat16, self.mlm = settings, precision == "bfloat16", mlm
        sizes = [(one.config.num_attention_heads, one.config.hidden_size) for one in (teacher, student)]
        self.heads = relation_heads(settings.heads, sizes[0], sizes[1], settings.method)
        self.layer = chosen_layer(settings.teacher_layer, teacher.config.num_hidden_layers)
        if self.bfloat16:
            for layer in self.teacher.base_model.encoder.modules():
                if isinstance(layer, nn.Linear):
                    layer.to(torch.bfloat16)

    @property
    def weights(self) -> dict[str, float]:
        """Of the relations, and of masked language modelling where it counts."""
        return {RELATIONS: 1.0, **({"mlm": self.mlm} if self.mlm else {})}

    def reads(self, batch: EncoderBatch) -> EncoderBatch:
        """The batch, unmasked where nothing is to be restored."""
        if self.mlm:
            return batch
        whole = batch.input_ids.flatten().index_copy(0, batch.restored, batch.originals)
        return replace(batch, input_ids=whole.view_as(batch.input_ids))

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[Callable[[EncoderBatch], dict[str, Prediction]]]:
        """Around the student's pass; what is given runs the teacher's and compares."""
        with recorded({RELATIONS: _attention(model, -1)}) as own:

            def compared(batch: EncoderBatch) -> dict[str, Prediction]:
                theirs = self._taught(batch)
                sides = [_attending(one.config, found) for one, found in ((self.teacher, theirs), (model, own[RELATIONS]))]
                layout = Layout(batch.mask.float(), batch.mask.float())
                apart = relations_apart(self.settings.method, self.heads, sides[0], sides[1], layout)
                return {RELATIONS: Prediction(torch.stack([rows for rows, _ in apart]).sum(0)[batch.mask])}

            yield compared

    def _taught(self, batch: EncoderBatch) -> Projections:
        device = batch.input_ids.device
        if next(self.teacher.parameters()).device != device:
            nn.Module.to(self.teacher, device)
        with (
            torch.no_grad(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bfloat16),
            recorded({RELATIONS: _attention(self.teacher, self.layer)}) as theirs,
        ):
            self.teacher.base_model(input_ids=batch.input_ids, attention_mask=batch.mask, token_type_ids=batch.segments)
        return theirs[RELATIONS]


def _attention(model: Any, layer: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The layers that make queries, keys and values."""
    attention = model.base_model.encoder.layer[layer].attention.self
    return attention.query, attention.key, attention.value


def _attending(config: Any, found: Projections) -> Attending:
    heads = config.num_attention_heads
    return Attending(found, heads, (config.hidden_size // heads) ** -0.5, 1.0)
