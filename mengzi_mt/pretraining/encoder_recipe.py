"""The recipe of an encoder's pretraining: one YAML file, as the recipe of a T5 (:mod:`mengzi_mt.config`), with its own sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mengzi_mt.config import OptimiserSettings, TrackingSettings, load_settings
from mengzi_mt.denoising_settings import InstanceSettings
from mengzi_mt.settings import Settings


class EncoderModelSettings(Settings):
    """What is trained: a shape with random weights, or a checkpoint."""

    shape: Literal["micro", "mini", "base", "base-l6"] | None = None
    init: str | None = Field(None, description="Folder or hub name of a BERT or RoBERTa to start from.")
    architecture: Literal["bert", "roberta"] = Field("bert", description="Of a `shape`.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Inside the blocks and of attention weights.")
    tokenizer: str = Field(description="Folder or hub name of the tokenizer that the corpus was built with.")

    @model_validator(mode="after")
    def _one_start(self) -> EncoderModelSettings:
        if (self.shape is None) == (self.init is None):
            raise ValueError("give either `shape` (random weights) or `init` (a checkpoint)")
        return self


class ObjectiveSettings(Settings):
    """What is predicted, and how much each counts: L = L_mlm + pos L_pos + ner L_ner + order_weight L_order."""

    mask_share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are masked.")
    whole_words: bool = Field(True, description="Mask whole words; needs `mengzi-mt corpus tag`.")
    pos: float = Field(0.0, ge=0, description="Weight of tagging parts of speech; 0: not predicted. Needs `mengzi-mt corpus tag`.")
    ner: float = Field(0.0, ge=0, description="Weight of tagging entities; 0: not predicted. Needs `mengzi-mt corpus tag`.")
    order: Literal["none", "sop", "nsp"] = Field(
        "none", description="sop: were two segments swapped (ALBERT)? nsp: is the second of another document (BERT)?"
    )
    order_weight: float = Field(1.0, gt=0)
    schedule: Literal["constant", "lert"] = Field(
        "constant", description="lert: the weight of pos rises over the first 1/6 of the steps, that of ner over the first 1/3."
    )
    instance: InstanceSettings = InstanceSettings()

    @property
    def names(self) -> list[str]:
        """The objectives that are trained."""
        return ["mlm", *(name for name in ("pos", "ner") if getattr(self, name)), *(["order"] if self.order != "none" else [])]

    @property
    def observed(self) -> list[str]:
        """What a run keeps losses of: the objectives, and the divergence of original and restored rows where it is computed."""
        return [*self.names, *(["consistency"] if self.instance.restores else [])]

    @property
    def needs_tags(self) -> bool:
        """Whether the corpus must be tagged."""
        return self.whole_words or self.pos > 0 or self.ner > 0


class EncoderTrainingSettings(Settings):
    """The loop."""

    steps: int = Field(ge=1)
    batch: int = Field(128, ge=1, description="Windows of an optimiser step.")
    window: int = Field(128, ge=8, le=512, description="Tokens of a window at most, special tokens included.")
    micro_batch_tokens: int = Field(8_192, ge=64, description="Tokens (padding included) of one forward pass.")
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    workers: int = Field(1, ge=0, description="Processes that make batches ahead.")
    held_out: float = Field(0.002, ge=0, lt=1, description="Share of the documents kept for validation, by hash.")
    validation_windows: int = Field(256, ge=1, description="Held-out windows that a validation reads.")
    validate_every: int = Field(0, ge=0, description="Steps between validations; 0: none.")
    log_every: int = Field(10, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep_last: int = Field(2, ge=1)

    @field_validator("precision", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"bf16": "bfloat16", "fp32": "float32"}.get(str(value).lower(), value)


class EncoderRecipe(Settings):
    """An encoder's pretraining from corpus to checkpoint."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(0, ge=0)
    output: str | None = Field(None, description="Run folder; by default runs/<name>.")
    corpus: str = Field(description="Folder that `mengzi-mt corpus build` made.")
    model: EncoderModelSettings
    objectives: ObjectiveSettings = ObjectiveSettings()
    optimiser: OptimiserSettings = OptimiserSettings(name="adamw", learning_rate=1e-3, weight_decay=0.01, schedule="linear")
    training: EncoderTrainingSettings
    tracking: TrackingSettings = TrackingSettings()

    @property
    def run_dir(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"runs/{self.name}")


def load_encoder_recipe(name: str | Path, overrides: list[str] | None = None) -> EncoderRecipe:
    """Read a recipe and apply ``key.path=value`` overrides.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong value, or a malformed override.
    """
    return load_settings(EncoderRecipe, name, overrides)
