"""Recipes: one typed, validated description of a training run, read from YAML with ``key.path=value`` overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.resources import resource_dir
from mengzi_mt.yaml_io import load_mapping


class Settings(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Settings):
    """Where rows come from."""

    source: Literal["files", "sample", "hub"] = "files"
    map: str | None = Field(None, description="Data map: a file, or the name of a shipped one.")
    validation_rows: int = Field(64, ge=0, description="Validation examples per task, for the loss during training.")
    exclude: str | None = Field(None, description="View of rows to leave out, from `mengzi-mt data overlap --write-view`.")
    prepared_dir: str | None = Field(
        None, description="Where `mengzi-mt prepare` writes and training looks; by default prepared/ in the cache folder."
    )


class ModelSettings(Settings):
    """What is trained: a shape with random weights, or a checkpoint."""

    shape: Literal["micro", "mini", "small", "base"] | None = None
    init: str | None = Field(None, description="Folder or hub name of a T5 to start from.")
    dropout: float = Field(0.0, ge=0, lt=1)
    tokenizer: str | None = Field(None, description="Folder or hub name; by default the one of `init`.")

    @model_validator(mode="after")
    def _one_start(self) -> ModelSettings:
        if (self.shape is None) == (self.init is None):
            raise ValueError("give either `shape` (random weights) or `init` (a checkpoint)")
        if self.shape and not self.tokenizer:
            raise ValueError("a model of a `shape` needs a `tokenizer` (a folder, or `train` to train one on the mixture)")
        return self


class MixtureSettings(Settings):
    """Which tasks and templates, at which rates."""

    tasks: tuple[str, ...] = Field(min_length=1)
    strategy: Literal["proportional", "temperature", "equal", "explicit"] = "proportional"
    cap: int = Field(500_000, ge=1, description="Rows that a task counts as at most (examples-proportional mixing).")
    temperature: float = Field(1.0, gt=0, description="Rates are raised to 1/temperature.")
    rates: dict[str, float] = Field({}, description="Rates per task, for `explicit`.")
    templates: dict[str, tuple[str, ...]] = Field({}, description="Template names per task; all by default.")
    original_only: bool = Field(False, description="Only templates of the task's intended use.")
    rows_per_task: int | None = Field(None, ge=1, description="At most so many training rows a task.")
    allow_zero_shot_tasks: bool = False

    @field_validator("rates")
    @classmethod
    def _positive(cls, rates: dict[str, float]) -> dict[str, float]:
        for task, rate in rates.items():
            if not rate > 0 or rate == float("inf"):
                raise ValueError(f"the rate of {task!r} is {rate}; it must be a positive number")
        return rates

    @model_validator(mode="after")
    def _explicit(self) -> MixtureSettings:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("a task is named twice")
        if self.strategy == "explicit" and set(self.rates) != set(self.tasks):
            raise ValueError("`explicit` needs `rates` for exactly the tasks of the mixture")
        return self


class LengthSettings(Settings):
    """Limits of an example and lengths of the rows that examples are packed into, in tokens."""

    max_input: int = Field(512, ge=8)
    max_target: int = Field(128, ge=4)
    rows: tuple[tuple[int, int], ...] = Field(
        ((256, 32), (512, 64), (512, 128)),
        min_length=1,
        description="Row lengths (encoder, decoder); an example goes to the first that holds both of its sides.",
    )

    @model_validator(mode="after")
    def _fits(self) -> LengthSettings:
        if list(self.rows) != sorted(set(self.rows)):
            raise ValueError("the row lengths must rise")
        if not any(inputs >= self.max_input and targets >= self.max_target for inputs, targets in self.rows):
            raise ValueError("one row length must hold an example of max_input and max_target tokens")
        return self


class OptimiserSettings(Settings):
    """The optimiser and its schedule."""

    name: Literal["adamw", "adamw_scaled", "adafactor"] = "adamw_scaled"
    learning_rate: float = Field(1e-2, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(1e-8, gt=0)
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt"] = "cosine"
    warmup: int = Field(100, ge=0, description="Steps of linear warm-up.")
    final_ratio: float = Field(0.1, ge=0, le=1, description="Last learning rate as a share of the highest.")


class TrainingSettings(Settings):
    """The loop."""

    steps: int = Field(ge=1)
    batch: int = Field(128, ge=1, description="Examples per optimiser step.")
    micro_batch_tokens: int = Field(8_192, ge=64, description="Tokens (padding included) of one forward pass; sets accumulation.")
    precision: Literal["float32", "bfloat16"] = "float32"
    loss_weighting: Literal["token", "example"] = Field(
        "token", description="Whether every target token counts alike, or every example (its tokens share its weight)."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    device: str = "auto"
    log_every: int = Field(10, ge=1)
    validate_every: int = Field(0, ge=0, description="Steps between validations; 0 for none.")
    checkpoint_every: int = Field(500, ge=1)
    keep_last: int = Field(2, ge=1)

    @field_validator("precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: Any) -> Any:
        if str(value).lower() in ("fp16", "float16", "half", "16"):
            raise ValueError(
                "float16 is refused: T5's activations overflow its range and the loss becomes NaN; use bfloat16 or float32"
            )
        return {"bf16": "bfloat16", "fp32": "float32"}.get(str(value).lower(), value)


class Recipe(Settings):
    """A training run from data to checkpoint."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = 0
    output: str | None = Field(None, description="Run folder; by default runs/<name>.")
    data: DataSettings = DataSettings()
    model: ModelSettings
    mixture: MixtureSettings
    lengths: LengthSettings = LengthSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    training: TrainingSettings

    @property
    def run_dir(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"runs/{self.name}")


def find_recipe(name: str | Path) -> Path:
    """The recipe's file: a path as given, or the name of a shipped one."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = resource_dir("recipes") / f"{path.name.removesuffix('.yaml')}.yaml"
    if shipped.is_file():
        return shipped
    known = [item.stem for item in resource_dir("recipes").glob("*.yaml")]
    raise InputError("There is no such recipe", where=str(name), fix=nearest(path.stem, known))


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply ``key.path=value`` overrides.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong value, or a malformed override.
    """
    path = find_recipe(name)
    raw = load_mapping(path)
    for override in overrides or []:
        _apply_override(raw, override)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise _recipe_error(path, error) from error


def dump_recipe(recipe: Recipe) -> str:
    """The whole resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError("An override is written key.path=value", where=override, fix="for instance training.steps=100")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a malformed date is a ValueError
        raise InputError("The override's value is not valid YAML", where=override, fix="quote it") from error
    *path, last = key.split(".")
    target = raw
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise InputError(f"{part!r} is a value, not a section", where=override, fix="check the key with --print-config")
    target[last] = float(value) if isinstance(value, str) and _is_number(value) else value


def _is_number(text: str) -> bool:
    """YAML 1.1 reads ``1e-3`` as text; a recipe means the number."""
    try:
        float(text)
    except ValueError:
        return False
    return any(c.isdigit() for c in text)


def _recipe_error(path: Path, error: ValidationError) -> InputError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    where = f"{path}, key {'.'.join(location) or '(whole recipe)'}"
    if first["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        return InputError(f"Unknown key {location[-1]!r}", where=where, fix=nearest(location[-1], section.model_fields))
    message = first["msg"].removeprefix("Value error, ")
    return InputError(
        f"The recipe is not valid: {message}", where=where, fix="correct this key; --print-config shows the whole recipe"
    )
