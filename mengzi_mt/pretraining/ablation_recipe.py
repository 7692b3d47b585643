"""The recipe of an ablation: an encoder's recipe with variants of its objectives, seeds, and tasks to fine-tune on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from mengzi_mt.config import load_settings
from mengzi_mt.errors import nearest
from mengzi_mt.pretraining.encoder_recipe import EncoderRecipe, ObjectiveSettings
from mengzi_mt.pretraining.finetuning_settings import FinetuningSettings


class AblationRecipe(EncoderRecipe):
    """Every variant is pretrained once a seed, for equally many steps, and fine-tuned on every task.

    ``training.steps`` is the most; the hours that are given decide.
    """

    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="Of weights, windows, masks and fine-tuning.")
    variants: dict[str, dict[str, Any]] = Field(
        min_length=2, description="Name: what differs from `objectives`. The others are compared with the first."
    )
    finetuning: FinetuningSettings

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("the seeds must differ and be 0 or more")
        return seeds

    @model_validator(mode="after")
    def _variants_are_objectives(self) -> AblationRecipe:
        for name in self.variants:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise ValueError(f"a variant is named {name!r}; use small letters, digits and _")
            self.objectives_of(name)
        return self

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return next(iter(self.variants))

    def objectives_of(self, variant: str) -> ObjectiveSettings:
        """A variant's objectives.

        Raises:
            ValueError: an unknown key (with the nearest known one) or a wrong value.
        """
        try:
            return ObjectiveSettings.model_validate(_merged(self.objectives.model_dump(), self.variants[variant]))
        except ValidationError as error:
            first = error.errors()[0]
            path = [str(part) for part in first["loc"]]
            where = ".".join(["variants", variant, *path])
            if first["type"] != "extra_forbidden":
                raise ValueError(f"{where}: {first['msg']}") from error
            section: Any = ObjectiveSettings
            for part in path[:-1]:
                section = section.model_fields[part].annotation
            raise ValueError(f"{where} is no key of `objectives`. {nearest(path[-1], section.model_fields)}") from error

    def run_recipe(self, variant: str, seed: int, steps: int, output: Path) -> EncoderRecipe:
        """The ordinary recipe of one run. A warm-up is a tenth of the steps at most."""
        raw = self.model_dump(exclude={"seeds", "variants", "finetuning"})
        optimiser = {**raw["optimiser"], "warmup": min(self.optimiser.warmup, steps // 10)}
        changed = {
            "name": f"{self.name}-{variant}-{seed}",
            "seed": seed,
            "output": str(output),
            "objectives": self.objectives_of(variant),
            "optimiser": optimiser,
            "training": {**raw["training"], "steps": steps},
        }
        return EncoderRecipe.model_validate(raw | changed)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        before = base.get(key)
        merged[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def load_ablation_recipe(name: str | Path, overrides: list[str] | None = None) -> AblationRecipe:
    """Read a recipe and apply ``key.path=value`` overrides.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong value, or a malformed override.
    """
    return load_settings(AblationRecipe, name, overrides)
