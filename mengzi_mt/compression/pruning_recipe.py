"""The recipe of a pruning: a training recipe whose ``model.init`` is the checkpoint to prune, and what is to go."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mengzi_mt.compression.distil_recipe import LogitSettings, LossSettings
from mengzi_mt.compression.pruning_choice import Selection
from mengzi_mt.config import Recipe, load_settings
from mengzi_mt.models.pruned import Kind
from mengzi_mt.settings import Settings


class VocabularySettings(Settings):
    """Pieces of the tokenizer: those that some text uses stay."""

    corpus: str | None = Field(None, description="Folder that `mengzi-mt corpus build` made with the checkpoint's tokenizer.")
    examples: int = Field(20_000, ge=0, description="Examples of the mixture whose pieces are counted.")
    least: int = Field(1, ge=1, description="A piece that is used so often stays.")
    size: int | None = Field(None, ge=400, description="Pieces in all at most: of those, the ones that are used most.")
    characters: bool = Field(True, description="Keep every piece of one character, which would else be spelled in three bytes.")

    @model_validator(mode="after")
    def _counts_something(self) -> VocabularySettings:
        if not self.corpus and not self.examples:
            raise ValueError("no text to count pieces in: give a `corpus`, or `examples` of the mixture")
        return self


class LayerSettings(Settings):
    """Layers that stay: a number of them, chosen by importance, or which ones (counted from 0)."""

    encoder: int | tuple[int, ...] | None = None
    decoder: int | tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _some_stay(self) -> LayerSettings:
        if self.encoder is None and self.decoder is None:
            raise ValueError("say which layers stay: `encoder`, `decoder` or both")
        if any(kept in (0, ()) or (isinstance(kept, int) and kept < 0) for kept in (self.encoder, self.decoder)):
            raise ValueError("at least one layer stays")
        return self


class UnitSettings(Settings):
    """Heads and feed-forward neurons: a share of them, or as many as a size asks for."""

    method: Literal["importance", "slimming"] = Field(
        "importance", description="importance: |gradient × weight| (ROSITA). slimming: learnt coefficients (EarlyBERT)."
    )
    heads: float = Field(0.0, ge=0, lt=1, description="Share of the heads that goes.")
    neurons: float = Field(0.0, ge=0, lt=1, description="Share of the feed-forward neurons that goes.")
    parameters: int | None = Field(None, ge=1, description="In place of both shares: parameters of the model at most.")
    selection: Selection = Field(
        "global", description="global: from whichever layer. layer: that share of every layer. alike: a plain T5 comes out."
    )
    rounds: int = Field(1, ge=1, description="Prune a little, train, prune again: the share rises evenly over so many rounds.")

    @model_validator(mode="after")
    def _something_goes(self) -> UnitSettings:
        if bool(self.heads or self.neurons) == (self.parameters is not None):
            raise ValueError("give the shares that go (`heads`, `neurons`), or `parameters` of the smaller model")
        if self.method == "slimming" and self.rounds > 1:
            raise ValueError("slimming draws one ticket: set rounds: 1, or method: importance")
        return self

    @property
    def shares(self) -> dict[Kind, float]:
        """The shares that go, of the kinds of which any goes."""
        given: dict[Kind, float] = {"heads": self.heads, "neurons": self.neurons}
        return {kind: share for kind, share in given.items() if share}


class SlimmingSettings(Settings):
    """The search for an Early-Bird ticket."""

    penalty: float = Field(1e-4, gt=0, description="λ, the weight of the coefficients' L1 norm.")
    steps: int = Field(200, ge=1, description="Steps at most.")
    look_every: int = Field(10, ge=1, description="Steps between two looks at the mask.")
    window: int = Field(5, ge=1, description="So many last distances between masks have to be small.")
    threshold: float = Field(0.02, ge=0, lt=1, description="What is small: share of units in which two masks differ.")


class TeachingSettings(Settings):
    """What is learnt from the model as it was before units and layers went: (1 - weight) CE + weight τ² KL."""

    weight: float = Field(0.5, gt=0, le=1)
    temperature: float = Field(2.0, gt=0, description="τ")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Of the teacher's matrix products.")

    @property
    def losses(self) -> LossSettings:
        """As a distillation's."""
        return LossSettings(hard=1 - self.weight, logits=LogitSettings(weight=self.weight, temperature=self.temperature))


class PruneRecipe(Recipe):
    """A pruning. What `training` and `optimiser` say holds for the training after every removal (`training.steps` each)."""

    vocabulary: VocabularySettings | None = None
    layers: LayerSettings | None = None
    units: UnitSettings | None = None
    score_steps: int = Field(32, ge=1, description="Steps of the mixture over which importance is summed.")
    slimming: SlimmingSettings = SlimmingSettings()
    teacher: TeachingSettings | None = Field(None, description="Train with the unpruned model's logits; `{}` for the defaults.")

    @model_validator(mode="after")
    def _can_be_pruned(self) -> PruneRecipe:
        if not (self.vocabulary or self.layers or self.units):
            raise ValueError("nothing is to go: give `vocabulary`, `layers` or `units`")
        if not self.model.init:
            raise ValueError("a checkpoint is pruned: set model.init")
        if self.model.tokenizer:
            raise ValueError("a checkpoint is pruned with its own tokenizer: take out model.tokenizer")
        if self.training.layout != "flat":
            raise ValueError("coefficients and the teacher's logits are trained on flat batches: set training.layout: flat")
        if self.training.lora or self.training.freeze or self.training.ema:
            raise ValueError("all weights are trained after a removal: take out training.lora, freeze and ema")
        if self.denoising:
            raise ValueError("importance and recovery are those of the tasks' mixture: take out `denoising`")
        return self

    def stage(self, name: str, init: Path | str, seed: int, **training: object) -> Recipe:
        """The training recipe of one stage, in a folder of its own below the run's."""
        raw = self.model_dump(mode="json", exclude=set(PruneRecipe.model_fields) - set(Recipe.model_fields))
        raw |= {"name": f"{self.name}-{name}", "output": str(self.run_dir / name), "seed": self.seed + seed}
        raw["model"] |= {"init": str(init)}
        raw["training"] |= training
        return Recipe.model_validate(raw)


def load_prune_recipe(name: str | Path, overrides: list[str] | None = None) -> PruneRecipe:
    """Read a recipe and apply ``key.path=value`` overrides.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong value, or a malformed override.
    """
    return load_settings(PruneRecipe, name, overrides)
