"""How encoders are fine-tuned to be compared: the same few steps for every one of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mengzi_mt.config import OptimiserSettings
from mengzi_mt.settings import Settings


class FinetuningSettings(Settings):
    """Tasks of the registry and the training on each."""

    tasks: tuple[str, ...] = Field(min_length=1, description="Each classifies one text or a pair, or marks entities in a text.")
    rows: int = Field(4_000, ge=1, description="Training rows at most, drawn by the run's seed.")
    validation_rows: int = Field(2_000, ge=1, description="Rows of the validation split at most, the same for every run.")
    steps: int = Field(300, ge=1)
    batch: int = Field(32, ge=1, description="Rows of a step.")
    window: int = Field(128, ge=8, le=512, description="Tokens of a row at most, special tokens included; longer ones are cut.")
    dropout: float = Field(0.1, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    optimiser: OptimiserSettings = OptimiserSettings(
        name="adamw", learning_rate=1e-3, weight_decay=0.01, betas=(0.9, 0.98), schedule="linear", warmup=30, final_ratio=0.0
    )

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tasks)) != len(tasks):
            raise ValueError("a task is named twice")
        return tasks
