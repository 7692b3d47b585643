"""The recipe of a pipeline: a teacher, the stages that make it smaller, and how what comes out is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mengzi_mt.compression.distil_recipe import DistilRecipe, EncoderDistilRecipe, load_distil_recipe
from mengzi_mt.compression.export import ExportSettings, precisions
from mengzi_mt.compression.pruning_recipe import PruneRecipe, load_prune_recipe
from mengzi_mt.compression.qat import rounding_recipe
from mengzi_mt.config import Recipe, load_settings
from mengzi_mt.errors import InputError
from mengzi_mt.settings import Settings

NEEDS_EQUAL_LAYERS = ("ctranslate2", "onnx")


class PipelineData(Settings):
    """Rows of all stages and of the suites."""

    source: Literal["files", "sample", "hub"] = "files"
    map: str | None = Field(None, description="Data map: a file, or the name of a shipped one.")
    exclude: str | None = Field(None, description="View of rows to leave out of training.")


class StageRecipe(Settings):
    """A stage that has a recipe of its own kind. Teacher, checkpoint, data and output are the pipeline's."""

    recipe: str = Field(description="Recipe file, or the name of a shipped one.")
    overrides: tuple[str, ...] = Field((), description="key.path=value, as on the command line.")


class QuantiseStage(Settings):
    """The int8 form of torch."""

    fine_tune: StageRecipe | None = Field(
        None, description="A training recipe that goes on with int8's rounding in its forward pass; later forms are made of it."
    )


def _form(value: Any) -> Any:
    """``ctranslate2 int8`` for ``{to: ctranslate2, precision: int8}``."""
    to, _, precision = value.partition(" ") if isinstance(value, str) else ("", "", "")
    return {"to": to, "precision": precision or "int8"} if to else value


ExportForm = Annotated[ExportSettings, BeforeValidator(_form)]


class ExportStage(Settings):
    """Forms of other runtimes."""

    forms: tuple[ExportForm, ...] = Field(min_length=1, description="`RUNTIME PRECISION`, for instance `ctranslate2 int8`.")

    @model_validator(mode="after")
    def _known(self) -> ExportStage:
        for form in self.forms:
            if form.precision not in precisions(form.to):
                raise ValueError(f"{form.to} has no precision {form.precision!r}; use {', '.join(precisions(form.to))}")
        if len({form_name(form) for form in self.forms}) < len(self.forms):
            raise ValueError("a form is named twice")
        return self


class SuiteSettings(Settings):
    """A suite that teacher and forms are scored on."""

    suite: str = Field(description="A shipped name or a YAML file.")
    tasks: tuple[str, ...] = Field((), description="Some of its tasks; all by default.")
    limit: int | None = Field(None, ge=1, description="Rows a task at most.")
    seed: int | None = Field(1, description="Of the draw of `limit` rows; null for the first ones.")
    max_templates: int | None = Field(None, ge=1, description="The first so many templates of each task.")


class MeasureSettings(Settings):
    """What is measured of teacher and forms. Times are of interleaved rounds over real rows of the suites."""

    suites: tuple[SuiteSettings, ...] = Field(min_length=1, description="The first one's mean score stands in the pictures.")
    teacher_exports: bool = Field(True, description="Measure the teacher in the same forms as well.")
    rounds: int = Field(5, ge=1, description="Every round measures every form once on rows of its own.")
    rows: int = Field(32, ge=1, description="Inputs a round, in batches.")
    batch: int = Field(32, ge=1, description="Inputs a batch.")
    alone: int = Field(12, ge=1, description="Inputs a round that go one by one.")
    new_tokens: int = Field(16, ge=1, description="Generated tokens at most.")
    max_input: int = Field(512, ge=8)
    threads: int = Field(1, ge=1)


class PipelineRecipe(Settings):
    """teacher → distil → prune → quantise → export; a stage that is not named is left out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    output: str | None = Field(None, description="Folder of the pipeline; by default runs/<name>.")
    teacher: str = Field(description="Folder or hub name of a T5.")
    data: PipelineData = PipelineData()
    distil: StageRecipe | None = None
    prune: StageRecipe | None = None
    quantise: QuantiseStage | None = None
    export: ExportStage | None = None
    measure: MeasureSettings

    @model_validator(mode="after")
    def _does_something(self) -> PipelineRecipe:
        if not (self.distil or self.prune or self.quantise or self.export):
            raise ValueError("there is nothing to do: give `distil`, `prune`, `quantise` or `export`")
        return self

    @property
    def run_dir(self) -> Path:
        """Where everything is."""
        return Path(self.output) if self.output else Path("runs") / self.name

    def forms(self) -> list[ExportSettings]:
        """Forms of the last checkpoint, and of the teacher: of `quantise`, then of `export`."""
        own = [ExportSettings()] if self.quantise else []
        return own + [form for form in (self.export.forms if self.export else ()) if form not in own]

    def distil_recipe(self, teacher: str, output: Path) -> DistilRecipe:
        """The distillation, into a folder.

        Raises:
            InputError: an invalid recipe, or an encoder's.
        """
        assert self.distil is not None
        own = list(self.distil.overrides)
        if isinstance(load_distil_recipe(self.distil.recipe, own), EncoderDistilRecipe):
            raise InputError("The recipe distils an encoder, which no suite scores", where=f"distil.recipe: {self.distil.recipe}",
                             fix="name one of a T5, or run `mengzi-mt compress distil` by itself")  # fmt: skip
        loaded = load_distil_recipe(self.distil.recipe, [*own, *self._given(output), f"teacher.model={teacher}"])
        assert isinstance(loaded, DistilRecipe)
        return loaded

    def prune_recipe(self, checkpoint: str, output: Path) -> PruneRecipe:
        """The pruning of a checkpoint, into a folder.

        Raises:
            InputError: an invalid recipe.
        """
        assert self.prune is not None
        return load_prune_recipe(
            self.prune.recipe, [*self.prune.overrides, *self._given(output), f"model.init={checkpoint}", "model.tokenizer=null"]
        )

    def rounding_recipe(self, checkpoint: str, output: Path) -> Recipe:
        """The fine-tuning of a checkpoint with int8's rounding, into a folder.

        Raises:
            InputError: an invalid recipe.
        """
        assert self.quantise is not None and self.quantise.fine_tune is not None
        stage = self.quantise.fine_tune
        return rounding_recipe(stage.recipe, Path(checkpoint), [*stage.overrides, *self._given(output)])

    def _given(self, output: Path) -> list[str]:
        """Overrides of every stage's recipe."""
        data = [f"data.source={self.data.source}", f"data.map={self.data.map or 'null'}"]
        if self.data.exclude:
            data.append(f"data.exclude={self.data.exclude}")
        return [*data, f"output={output}"]


def form_name(form: ExportSettings) -> str:
    """What a form is called in folders and tables: ``ctranslate2-int8``."""
    return f"{form.to}-{form.precision}"


def load_pipeline_recipe(name: str | Path, overrides: list[str] | None = None) -> PipelineRecipe:
    """Read a recipe and apply ``key.path=value`` overrides, and see that its stages fit one another.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong value, a stage's recipe that is invalid, or a pruning
            that leaves a shape which a form cannot take.
    """
    recipe = load_settings(PipelineRecipe, name, overrides)
    if recipe.distil:
        recipe.distil_recipe(recipe.teacher, recipe.run_dir)
    if recipe.prune:
        units = recipe.prune_recipe(recipe.teacher, recipe.run_dir).units
        limited = [form_name(form) for form in recipe.forms() if form.to in NEEDS_EQUAL_LAYERS]
        if limited and units and (units.heads or units.parameters) and units.selection != "alike":
            raise InputError(
                f"Pruned with units.selection: {units.selection}, heads differ by layer, which {limited[0]} does not know",
                where="prune", fix="set units.selection: alike, or leave that form out",
            )  # fmt: skip
    if recipe.quantise and recipe.quantise.fine_tune:
        recipe.rounding_recipe(recipe.teacher, recipe.run_dir)
    return recipe
