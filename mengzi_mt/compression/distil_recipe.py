"""The recipes of a distillation: a T5's (a training recipe with a teacher) and an encoder's (its pretraining recipe with one)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from mengzi_mt.config import Recipe, find_recipe, load_settings
from mengzi_mt.pretraining.encoder_recipe import EncoderModelSettings, EncoderRecipe, ObjectiveSettings
from mengzi_mt.settings import Settings
from mengzi_mt.yaml_io import load_mapping

Layers = tuple[int, ...] | Literal["even"]


class TeacherSettings(Settings):
    """The model that is learnt from. Its weights do not change."""

    model: str = Field(description="Folder or hub name, with its tokenizer.")
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="Of its matrix products.")


class LayeredStudent(Settings):
    """What every student may start from: chosen layers of a model, or a whole checkpoint."""

    init: str | None = Field(None, description="Folder or hub name of a checkpoint to start from.")
    layers: Layers | None = Field(
        None,
        description="Start from these layers of `init` (the teacher by default), counted from 0; `even`: 0, 2, 4, … "
        "A T5's layer that is named n times stands n times, each adding 1/n: a deeper student.",
    )
    tokenizer: str | None = Field(None, description="Folder or hub name; by default the one of `init`, or of the teacher.")

    @model_validator(mode="after")
    def _one_start(self) -> LayeredStudent:
        shape = getattr(self, "shape", None)
        if bool(shape) == bool(self.init or self.layers):
            raise ValueError("give either `shape` (random weights), or `layers` and `init` (weights of a model)")
        return self

    def model_section(self, teacher: TeacherSettings) -> dict[str, Any]:
        """The recipe's `model`: what the run loads or builds before layers are taken from it."""
        shape, init = getattr(self, "shape", None), self.init or teacher.model
        return {
            "shape": shape,
            "init": None if shape else init,
            "dropout": getattr(self, "dropout", 0.0),
            "tokenizer": self.tokenizer or init,
        }


class StudentSettings(LayeredStudent):
    """A T5 that learns."""

    shape: Literal["micro", "mini", "small", "base"] | None = Field(None, description="Random weights of this shape.")
    decoder_layers: Layers | None = Field(None, description="Of the decoder; by default as `layers`, which are the encoder's.")
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _both_stacks(self) -> StudentSettings:
        if self.decoder_layers and not self.layers:
            raise ValueError("`decoder_layers` needs `layers`, which are the encoder's")
        return self


class LogitSettings(Settings):
    """Learning the teacher's distributions over the next token (Hinton et al., arXiv:1503.02531)."""

    weight: float = Field(1.0, gt=0)
    temperature: float = Field(2.0, gt=0, description="Both sides' logits are divided by it; the loss is multiplied by its square.")


class RelationSettings(Settings):
    """Learning how tokens relate to each other in one layer of the teacher; see docs/compression.md."""

    method: Literal["minilm", "minilmv2"] = Field(
        "minilmv2",
        description="minilm: attention and value relations, equal numbers of heads. minilmv2: relation heads, any numbers.",
    )
    heads: int | None = Field(None, ge=1, description="Relation heads of minilmv2; by default four times the teacher's heads.")
    teacher_layer: int = Field(
        -1,
        description="Layer that teaches, counted from 0, or from the end: -1 is the last, -4 the 21st of 24 (MiniLMv2's choice).",
    )

    @model_validator(mode="after")
    def _heads_of_relations(self) -> RelationSettings:
        if self.heads and self.method == "minilm":
            raise ValueError("`heads` are relation heads, which minilm does not have; set method: minilmv2, or remove them")
        return self


class PlacedRelationSettings(RelationSettings):
    """The same of a T5, which attends in three places. A weight of 0 leaves a place out."""

    encoder: float = Field(1.0, ge=0, description="Weight of the encoder's self-attention.")
    decoder: float = Field(1.0, ge=0, description="Weight of the decoder's self-attention.")
    cross: float = Field(1.0, ge=0, description="Weight of the decoder's attention over the encoder.")

    @model_validator(mode="after")
    def _somewhere(self) -> PlacedRelationSettings:
        if not self.encoder + self.decoder + self.cross:
            raise ValueError("every place has the weight 0; leave `relations` out")
        return self


class LossSettings(Settings):
    """What is minimised: hard · CE + logits.weight · τ² KL + Σ over places weight · relations.

    Without the latter two the student learns by itself, which is what a teacher's worth is measured against.
    """

    hard: float = Field(1.0, ge=0, description="Weight of the cross-entropy of the targets.")
    logits: LogitSettings | None = None
    relations: PlacedRelationSettings | None = None

    @model_validator(mode="after")
    def _reaches_every_weight(self) -> LossSettings:
        if not self.hard and not self.logits:
            raise ValueError("relations alone leave the decoder's last layer and the head untrained: set `hard`, or give `logits`")
        return self

    @property
    def compares(self) -> bool:
        """Whether teacher and student read the same tokens in every step."""
        return self.logits is not None or self.relations is not None


class PseudoLabelSettings(Settings):
    """Sequence-level distillation (Kim and Rush, arXiv:1606.07947): targets that the teacher wrote by beam search."""

    examples: int = Field(ge=1, description="How many are written, drawn from the mixture's tasks at its rates.")
    share: float = Field(0.5, gt=0, le=1, description="Share of the examples that are pseudo-labelled; 1: in place of all others.")
    split: str = Field("train", description="Split whose rows are read; their labels, if any, are not.")
    beams: int = Field(4, ge=1)
    length_penalty: float = 1.0
    batch_size: int = Field(64, ge=1, description="Sequences generated at once, each beam counted.")
    file: str | None = Field(None, description="Where they are written and read; by default pseudo-labels.jsonl in the run folder.")


class AssistantSettings(Settings):
    """A student that becomes the next one's teacher (MiniLM, section 3.3)."""

    student: StudentSettings
    steps: int | None = Field(None, ge=1, description="By default the recipe's.")


class DistilRecipe(Recipe):
    """A T5's distillation: a training recipe whose `model` follows from `teacher` and `student`."""

    teacher: TeacherSettings
    student: StudentSettings
    losses: LossSettings = LossSettings(logits=LogitSettings(), relations=PlacedRelationSettings())
    pseudo_labels: PseudoLabelSettings | None = None
    assistants: tuple[AssistantSettings, ...] = Field((), description="Students on the way, each taught by the one before.")

    @model_validator(mode="before")
    @classmethod
    def _model_follows(cls, raw: Any) -> Any:
        return _with_model(raw, StudentSettings, {"encoder": None})

    @model_validator(mode="after")
    def _can_be_distilled(self) -> DistilRecipe:
        if self.training.layout != "flat":
            raise ValueError("teacher and student read flat batches: set training.layout: flat")
        if self.training.lora:
            raise ValueError("`training.lora` adapts a checkpoint, and a student is a model of its own; remove it")
        if self.denoising and self.denoising.instance.reads_originals:
            raise ValueError("`denoising.instance` has losses of its own, which are not mixed with a teacher's; remove it")
        if self.pseudo_labels and not self.mixture.tasks:
            raise ValueError("`pseudo_labels` are written for the rows of `mixture.tasks`, and there are none")
        if self.pseudo_labels and any(stage.lengths for stage in self.mixture.stages):
            raise ValueError("`pseudo_labels` have one limit of lengths: remove `lengths` of the mixture's stages")
        return self

    @property
    def pseudo_label_file(self) -> Path:
        """Where the teacher's answers are."""
        given = self.pseudo_labels.file if self.pseudo_labels else None
        return Path(given) if given else self.run_dir / "pseudo-labels.jsonl"

    def chain(self) -> list[DistilRecipe]:
        """A recipe for each assistant and one for the student, in order; each one's final checkpoint is the next one's teacher."""
        raw = self.model_dump(mode="json", exclude={"model", "assistants"})
        teacher, recipes = raw["teacher"], []
        for number, assistant in enumerate(self.assistants, 1):
            own = {
                "name": f"{self.name}-assistant-{number}",
                "output": str(self.run_dir / f"assistant-{number}"),
                "teacher": teacher,
                "student": assistant.student.model_dump(mode="json"),
                "training": {**raw["training"], **({"steps": assistant.steps} if assistant.steps else {})},
                "pseudo_labels": {**raw["pseudo_labels"], "file": None} if self.pseudo_labels else None,
            }
            recipes.append(DistilRecipe.model_validate({**raw, **own}))
            teacher = {**teacher, "model": str(recipes[-1].run_dir / "final")}
        return [*recipes, DistilRecipe.model_validate({**raw, "teacher": teacher})]


class EncoderStudentSettings(LayeredStudent):
    """A BERT or RoBERTa that learns."""

    shape: Literal["micro", "mini", "base", "base-l6"] | None = Field(None, description="Random weights of this shape.")
    architecture: Literal["bert", "roberta"] = Field("bert", description="Of a `shape`.")
    dropout: float = Field(0.1, ge=0, lt=1)

    def model_section(self, teacher: TeacherSettings) -> dict[str, Any]:
        """See :meth:`LayeredStudent.model_section`."""
        return {**super().model_section(teacher), "architecture": self.architecture}


class EncoderDistilRecipe(EncoderRecipe):
    """An encoder's distillation: a pretraining recipe whose `model` follows from `teacher` and `student`."""

    model: EncoderModelSettings
    teacher: TeacherSettings
    student: EncoderStudentSettings
    relations: RelationSettings = RelationSettings()
    mlm: float = Field(0.0, ge=0, description="Weight of masked language modelling beside; at 0 the texts are read unmasked.")
    objectives: ObjectiveSettings = ObjectiveSettings(whole_words=False)

    @model_validator(mode="before")
    @classmethod
    def _model_follows(cls, raw: Any) -> Any:
        return _with_model(raw, EncoderStudentSettings, {})

    @model_validator(mode="after")
    def _nothing_beside(self) -> EncoderDistilRecipe:
        extra = [name for name in self.objectives.names if name != "mlm"]
        if extra:
            raise ValueError(f"objectives.{extra[0]}: a student learns relations, and with `mlm` to restore words; nothing else")
        return self


def load_distil_recipe(name: str | Path, overrides: list[str] | None = None) -> DistilRecipe | EncoderDistilRecipe:
    """Read a recipe and apply ``key.path=value`` overrides; one with a ``corpus`` is an encoder's.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong value, or a malformed override.
    """
    has_corpus = "corpus" in load_mapping(find_recipe(name)) or any(one.startswith("corpus=") for one in overrides or [])
    return load_settings(EncoderDistilRecipe, name, overrides) if has_corpus else load_settings(DistilRecipe, name, overrides)


def _with_model(raw: Any, student: type[LayeredStudent], more: dict[str, Any]) -> Any:
    """The recipe with its ``model``, which a recipe that was written out holds already."""
    if not isinstance(raw, dict):
        return raw
    try:
        section = (
            student.model_validate(raw.get("student")).model_section(TeacherSettings.model_validate(raw.get("teacher"))) | more
        )
    except ValidationError:  # which is said of `student` or `teacher` themselves, not of what follows from them
        return {**raw, "model": {"init": "unknown", "tokenizer": "unknown"}}
    if raw.get("model") not in (None, section):
        raise ValueError("`model` follows from `student` and `teacher`; take it out")
    return {**raw, "model": section}
