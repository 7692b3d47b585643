"""The recipe's section ``denoising``: text without labels as a source of examples, beside tasks or alone."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mengzi_mt.settings import Settings


class DenoiserSettings(Settings):
    """One way to corrupt a window of text."""

    kind: Literal["spans", "suffix", "prefix_lm", "copy", "beside", "changes"] = Field(
        "spans",
        description="spans: T5's span corruption. suffix: the end behind one sentinel. prefix_lm: the end, no sentinel. copy: the "
        "text itself. beside: spans, with the whole text and another beside it. changes: what differs between two texts.",
    )
    density: float = Field(0.15, gt=0, lt=1, description="Share of tokens that are noise; of suffix and prefix_lm the mean share.")
    mean_span: float = Field(3.0, ge=1, description="Mean tokens of a span of noise.")
    weight: float = Field(1.0, gt=0, description="How often it is used beside the others.")
    prefix: str = Field("", description="Text that its inputs begin with, as UL2's mode tokens; in tokens of the tokenizer.")
    tokens: int = Field(
        64, ge=2, description="Of copy, beside and changes: tokens of each text, from a random place of the window."
    )

    @property
    def copies(self) -> bool:
        """Whether its answers stand in its inputs."""
        return self.kind in ("copy", "beside", "changes")


class InstanceSettings(Settings):
    """Losses that know how much the corruption damaged an instance (docs/pretraining.md, "Instance-aware denoising")."""

    damage: float = Field(0.0, ge=-4, le=4, description="Exponent of the share and place of the noise in an instance's weight.")
    distance: float = Field(
        0.0,
        ge=-4,
        le=4,
        description="Exponent of the distance between corrupted and original text as the current model reads them.",
    )
    most: float = Field(4.0, gt=1, description="An instance weighs at most so many times the mean, at least one such part of it.")
    consistency: float = Field(0.0, ge=0, description="Weight of the divergence between original and restored text.")
    tolerance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="By how much a wrong token's loss falls where the restored text reads as the original does.",
    )
    sampled: bool = Field(False, description="Restore by drawing tokens instead of taking the most probable ones.")

    @property
    def restores(self) -> bool:
        """Whether the restored text is read."""
        return self.consistency > 0 or self.tolerance > 0

    @property
    def reads_originals(self) -> bool:
        """Whether the model reads more than the corrupted text."""
        return self.distance != 0 or self.restores


class DenoisingSettings(Settings):
    """Denoising of a prepared corpus."""

    corpus: str = Field(description="Folder that `mengzi-mt corpus build` made.")
    rate: float = Field(1.0, gt=0, le=1, description="Share of denoising in the training data; the rest is the mixture of tasks.")
    rate_of: Literal["examples", "tokens"] = Field("examples", description="What `rate` is a share of.")
    denoisers: dict[str, DenoiserSettings] = Field({"r": DenoiserSettings()}, min_length=1)
    window: int = Field(512, ge=8, lt=65_536, description="Tokens of a piece of text at most.")
    whole_words: bool = Field(False, description="Noise begins and ends with words; needs `mengzi-mt corpus tag`.")
    candidates: int = Field(
        1, ge=1, le=64, description="Masks drawn for each window, of which the one with the rarest tokens is taken; 1: at random."
    )
    held_out: float = Field(0.002, ge=0, lt=1, description="Share of the documents kept for validation, by hash.")
    instance: InstanceSettings = InstanceSettings()

    @model_validator(mode="after")
    def _copies_fit(self) -> DenoisingSettings:
        for name, denoiser in self.denoisers.items():
            if not denoiser.copies:
                continue
            if 2 * denoiser.tokens > self.window:
                raise ValueError(
                    f"the denoiser {name!r} takes two texts of {denoiser.tokens} tokens from a window of {self.window}"
                )
            if self.instance.damage or self.instance.reads_originals:
                raise ValueError(f"the denoiser {name!r} takes nothing away, so there is no damage that `instance` could go by")
        return self

    @field_validator("denoisers")
    @classmethod
    def _named(cls, denoisers: dict[str, DenoiserSettings]) -> dict[str, DenoiserSettings]:
        for name in denoisers:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise ValueError(f"a denoiser is named {name!r}; use small letters, digits and _")
        return denoisers
