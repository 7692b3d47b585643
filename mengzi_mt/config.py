"""Recipes: one typed, validated description of a training run, read from YAML with ``key.path=value`` overrides."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mengzi_mt.denoising_settings import DenoisingSettings
from mengzi_mt.errors import InputError, nearest
from mengzi_mt.resources import resource_dir
from mengzi_mt.settings import Settings
from mengzi_mt.yaml_io import load_mapping

AnySettings = TypeVar("AnySettings", bound=Settings)


class DataSettings(Settings):
    """Where rows come from."""

    source: Literal["files", "sample", "hub"] = "files"
    map: str | None = Field(None, description="Data map: a file, or the name of a shipped one.")
    validation_rows: int = Field(64, ge=0, description="Validation examples per task, for the loss during training.")
    train_split: str = Field("train", description="Split that is trained on; every task of the mixture has it.")
    validation_split: str = Field("validation", description="Split that the validation examples are drawn from.")
    exclude: str | None = Field(
        None, description="View of rows to leave out, from `mengzi-mt data overlap --write-view`, or a shipped one: zeroclue."
    )
    prepared_dir: str | None = Field(
        None, description="Where `mengzi-mt prepare` writes and training looks; by default prepared/ in the cache folder."
    )


class ModelSettings(Settings):
    """What is trained: a shape with random weights, or a checkpoint."""

    shape: Literal["micro", "mini", "small", "base"] | None = None
    init: str | None = Field(None, description="Folder or hub name of a T5 to start from.")
    dropout: float = Field(0.0, ge=0, lt=1)
    tokenizer: str | None = Field(None, description="Folder or hub name; by default the one of `init`.")
    encoder: str | None = Field(None, description="With `shape`: BERT or RoBERTa that the encoder starts from, where it fits.")

    @model_validator(mode="after")
    def _one_start(self) -> ModelSettings:
        if (self.shape is None) == (self.init is None):
            raise ValueError("give either `shape` (random weights) or `init` (a checkpoint)")
        if self.shape and not self.tokenizer:
            raise ValueError("a model of a `shape` needs a `tokenizer` (a folder, or `train` to train one on the mixture)")
        if self.encoder and not self.shape:
            raise ValueError("`encoder` starts a model of a `shape`; a checkpoint (`init`) has an encoder of its own")
        return self


class LengthSettings(Settings):
    """Limits of an example and lengths of the rows that examples are packed into, in tokens."""

    max_input: int = Field(512, ge=8)
    max_target: int = Field(128, ge=4)
    rows: tuple[tuple[int, int], ...] = Field(
        ((128, 16), (512, 16), (512, 32), (512, 48), (512, 64), (512, 96), (512, 160)),
        min_length=1,
        description="Row lengths (encoder, decoder) to choose from; `mengzi-mt data lengths` proposes some for a mixture.",
    )

    @model_validator(mode="after")
    def _fits(self) -> LengthSettings:
        if list(self.rows) != sorted(set(self.rows)):
            raise ValueError("the row lengths must rise")
        if not any(inputs >= self.max_input and targets >= self.max_target for inputs, targets in self.rows):
            raise ValueError("one row length must hold an example of max_input and max_target tokens")
        return self


Strategy = Literal["proportional", "temperature", "equal", "explicit"]


class MixtureStage(Settings):
    """A stretch of steps that differs from the rest of the mixture in what is given here."""

    until_step: int | None = Field(None, ge=1, description="First step after the stage; the last stage has none.")
    tasks: tuple[str, ...] | None = Field(None, min_length=1, description="Some of the mixture's tasks.")
    strategy: Strategy | None = None
    cap: int | None = None
    temperature: float | None = None
    rates: dict[str, float] | None = None
    lengths: LengthSettings | None = Field(None, description="In place of the recipe's `lengths`.")


class MixtureSettings(Settings):
    """Which tasks and templates, at which rates."""

    tasks: tuple[str, ...] = Field((), description="None for denoising alone.")
    strategy: Strategy = "proportional"
    cap: int = Field(500_000, ge=1, description="Rows that a task counts as at most (examples-proportional mixing).")
    cap_per: Literal["task", "template"] = Field(
        "task", description="`task`: min(rows, cap), as T5. `template`: every template counts as a task of its own, as T0."
    )
    temperature: float = Field(1.0, gt=0, description="Rates are raised to 1/temperature.")
    rates: dict[str, float] = Field({}, description="Rates per task, for `explicit`.")
    templates: dict[str, tuple[str, ...]] = Field({}, description="Template names per task; all by default.")
    original_only: bool = Field(False, description="Only templates of the task's intended use.")
    templates_per_task: int | None = Field(None, ge=1, description="Only the first so many of a task's templates.")
    rows_per_task: int | None = Field(None, ge=1, description="At most so many training rows a task.")
    vary_choices: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of examples whose listed choices are shuffled and partly left out, where they can be.",
    )
    allow_zero_shot_tasks: bool = False
    stages: tuple[MixtureStage, ...] = Field((), description="Curriculum: what differs, by ranges of steps.")

    @field_validator("rates")
    @classmethod
    def _positive(cls, rates: dict[str, float]) -> dict[str, float]:
        for task, rate in rates.items():
            if rate <= 0:
                raise ValueError(f"the rate of {task!r} is {rate}; it must be a positive number")
        return rates

    @model_validator(mode="after")
    def _consistent(self) -> MixtureSettings:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("a task is named twice")
        for key in ("rates", "templates"):
            for name in getattr(self, key):
                if name not in self.tasks:
                    raise ValueError(f"`{key}` names {name!r}, which is not among `tasks`. {nearest(name, self.tasks)}")
        missing = [name for name in self.tasks if name not in self.rates]
        if self.strategy == "explicit" and missing:
            raise ValueError(f"`explicit` needs `rates` for every task; there is none for {', '.join(missing)}")
        if self.strategy != "explicit" and self.rates:
            raise ValueError(f"`rates` are given, but the strategy is `{self.strategy}`; set `strategy: explicit`, or remove them")
        self._check_stages()
        return self

    def _check_stages(self) -> None:
        ends = [stage.until_step for stage in self.stages[:-1]]
        if any(end is None for end in ends) or ends != sorted({end for end in ends if end}):
            raise ValueError("every stage but the last needs an `until_step`, and they must rise")
        if self.stages and self.stages[-1].until_step is not None:
            raise ValueError("the last stage lasts to the end and has no `until_step`")
        drawn = {name for number in range(len(self.stages)) for name in self.at_stage(number).tasks}
        if self.stages and drawn != set(self.tasks):
            raise ValueError(f"no stage draws from {', '.join(sorted(set(self.tasks) - drawn))}")

    def at_stage(self, number: int) -> MixtureSettings:
        """The settings of one stage. What it does not give it takes from the mixture; a strategy of its own starts afresh.

        Raises:
            ValueError: the stage names a task that the mixture lacks, or its settings are not consistent.
        """
        given = self.stages[number].model_dump(exclude_none=True, exclude={"until_step", "lengths"})
        inherited = self.model_dump(exclude={"stages"})
        tasks = given.get("tasks", self.tasks)
        for name in tasks:
            if name not in self.tasks:
                raise ValueError(f"a stage names the task {name!r}, which is not among `tasks`. {nearest(name, self.tasks)}")
        if given.get("strategy", self.strategy) != self.strategy:
            inherited["rates"] = {}
        for key in ("rates", "templates"):
            inherited[key] = {name: value for name, value in inherited[key].items() if name in tasks}
        try:
            return MixtureSettings.model_validate({**inherited, **given})
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"stage {number + 1}{', ' + where if where else ''}: {message}") from error


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


class LoraSettings(Settings):
    """Adapters of low rank (arXiv:2106.09685): ``W x`` becomes ``W x + (alpha / rank) B A x``, and only A and B are trained."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1, description="Of what the adapters read.")
    targets: tuple[str, ...] = Field(
        ("q", "v"), min_length=1, description="Linear layers of T5's blocks: q, k, v, o, and wi_0, wi_1 (or wi), wo."
    )


class TrainingSettings(Settings):
    """The loop."""

    steps: int = Field(ge=1)
    batch: int = Field(128, ge=1, description="Examples per optimiser step.")
    layout: Literal["flat", "packed"] = Field(
        "flat",
        description="flat: the tokens of a forward pass in one line, no padding. packed: rows of the fixed `lengths.rows`.",
    )
    attention: Literal["auto", "flex", "plain"] = Field(
        "auto",
        description="flex: FlexAttention's kernels, CUDA only, without dropout of attention weights. plain: scores in memory "
        "(flat: by groups of like length; packed: whole masks). auto: flex on CUDA, else plain.",
    )
    micro_batch_tokens: int = Field(8_192, ge=64, description="Tokens (padding included) of one forward pass; sets accumulation.")
    recompute: bool = Field(False, description="Compute activations again in the backward pass: less memory, more work.")
    precision: Literal["float32", "bfloat16"] = "float32"
    loss_weighting: Literal["token", "example"] = Field(
        "token", description="Whether every target token counts alike, or every example (its tokens share its weight)."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    z_loss: float = Field(0.0, ge=0, description="Weight of the squared log-normaliser (PaLM: 1e-4).")
    device: str = "auto"
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="Of several processes: ddp, each has all weights; fsdp, each keeps a part of them (FSDP2)."
    )
    workers: int = Field(1, ge=0, description="Processes that make batches ahead of the loop; 0 makes them in the loop.")
    log_every: int = Field(10, ge=1)
    validate_every: int = Field(0, ge=0, description="Steps between validations; 0 for none.")
    checkpoint_every: int = Field(500, ge=1)
    keep_last: int = Field(2, ge=1)
    ema: float | None = Field(None, gt=0, lt=1, description="Decay of an average of the weights that is validated and saved.")
    freeze: tuple[str, ...] = Field((), description="Patterns of parameters that are not trained; `!pattern` takes some out again.")
    lora: LoraSettings | None = Field(None, description="Train adapters instead of the weights; `{}` for the defaults.")
    fake_int8: bool = Field(
        False,
        description="Round states and matrices in the forward pass as an int8 export does, so that the weights get used to it.",
    )

    @model_validator(mode="after")
    def _one_choice_of_weights(self) -> TrainingSettings:
        if self.lora and self.parallel == "fsdp":
            raise ValueError("`lora` trains too little to be sharded; set parallel: ddp")
        if self.fake_int8 and (self.lora or self.parallel == "fsdp"):
            raise ValueError("`fake_int8` rounds whole matrices of a model's own; train all weights, with parallel: ddp")
        if self.lora and self.freeze:
            raise ValueError("`lora` freezes all weights but its own, so `freeze` means nothing beside it; remove one of them")
        return self

    @field_validator("precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: Any) -> Any:
        if str(value).lower() in ("fp16", "float16", "half", "16"):
            raise ValueError(
                "float16 is refused: T5's activations overflow its range and the loss becomes NaN; use bfloat16 or float32"
            )
        return {"bf16": "bfloat16", "fp32": "float32"}.get(str(value).lower(), value)


class TrackingSettings(Settings):
    """How a run is watched. `metrics.jsonl` is always written; none of this changes what is trained."""

    progress: Literal["auto", "rich", "plain", "none"] = Field("auto", description="`auto`: rich on a terminal, else plain lines.")
    wandb: bool = Field(False, description="Also log to Weights & Biases; offline unless there is an account or WANDB_MODE.")
    project: str = Field("mengzi-mt", description="Weights & Biases project.")
    peak_tflops: float | None = Field(
        None, gt=0, description="Matrix-product peak of one device, for MFU; measured at the start by default."
    )


class StoppingSettings(Settings):
    """What counts as the best checkpoint, and when to stop early. Looked at after each validation."""

    score: str = Field("validation_loss", description="Key of a validation's record; dots lead into it: validation_losses.lcqmc.")
    mode: Literal["min", "max"] = "min"
    min_delta: float = Field(0.0, ge=0, description="By how much a score must be better than the best to count as better.")
    patience: int | None = Field(None, ge=1, description="Stop after so many validations without a better score; never by default.")
    goal: float | None = Field(None, description="Stop as soon as the score is at least as good as this; never by default.")
    keep_best: bool = Field(False, description="Keep the checkpoint of the best score beside the last ones.")

    @property
    def watched(self) -> bool:
        """Whether validations have any consequence."""
        return self.patience is not None or self.goal is not None or self.keep_best


class Recipe(Settings):
    """A training run from data to checkpoint."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = 0
    output: str | None = Field(None, description="Run folder; by default runs/<name>.")
    data: DataSettings = DataSettings()
    model: ModelSettings
    mixture: MixtureSettings = MixtureSettings()
    denoising: DenoisingSettings | None = None
    lengths: LengthSettings = LengthSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    training: TrainingSettings
    tracking: TrackingSettings = TrackingSettings()
    stopping: StoppingSettings = StoppingSettings()

    @model_validator(mode="after")
    def _trains_on_something(self) -> Recipe:
        if self.denoising is None:
            if not self.mixture.tasks:
                raise ValueError("there is nothing to train on: name `mixture.tasks`, or give a `denoising` section")
            return self
        if self.training.layout != "flat":
            raise ValueError("`denoising` makes examples of many lengths, which need training.layout: flat")
        if self.denoising.instance.reads_originals and self.training.parallel == "fsdp":
            raise ValueError("`denoising.instance` reads texts that some passes lack: set training.parallel: ddp")
        if bool(self.mixture.tasks) == (self.denoising.rate == 1):
            raise ValueError("`denoising.rate` is 1 where there are no tasks, and less than 1 where there are some")
        return self

    @model_validator(mode="after")
    def _shardable(self) -> Recipe:
        if self.training.parallel == "fsdp" and self.optimiser.name == "adafactor":
            raise ValueError(
                "training.parallel: Adafactor keeps means of a matrix's rows and columns, which a sharded matrix does not have; "
                "set `ddp`, or optimiser.name: adamw_scaled"
            )
        return self

    @model_validator(mode="after")
    def _scored(self) -> Recipe:
        if self.stopping.watched and not self.training.validate_every:
            raise ValueError("`stopping` needs validations: set training.validate_every")
        return self

    @model_validator(mode="after")
    def _adapts_a_checkpoint(self) -> Recipe:
        if self.training.lora and not self.model.init:
            raise ValueError("`training.lora` adapts a checkpoint: set model.init (and model.shape: null)")
        return self

    @property
    def run_dir(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"runs/{self.name}")

    def stage_starts(self) -> list[int]:
        """The first step of each stage of the mixture; without stages, one that begins at 0."""
        return [0, *(stage.until_step for stage in self.mixture.stages[:-1] if stage.until_step is not None)]

    def lengths_at(self, step: int) -> LengthSettings:
        """Limits and row lengths of optimiser step ``step`` (counted from 0)."""
        stages = self.mixture.stages
        own = stages[bisect_right(self.stage_starts(), step) - 1].lengths if stages else None
        return own or self.lengths


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
    return load_settings(Recipe, name, overrides)


def load_settings(kind: type[AnySettings], name: str | Path, overrides: list[str] | None = None) -> AnySettings:
    """Read a recipe of some kind; see :func:`load_recipe`."""
    path = find_recipe(name)
    raw = _with_its_mixture(load_mapping(path), path)
    for override in overrides or []:
        _apply_override(raw, override)
        raw = _with_its_mixture(raw, path)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _recipe_error(path, error, kind) from error


def _with_its_mixture(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """``mixture: release-mini`` is the mixture of that recipe, ``mixture: {of: release-mini, …}`` the same with changes."""
    given = raw.get("mixture")
    given = {"of": given} if isinstance(given, str) else given
    if not isinstance(given, dict) or not isinstance(given.get("of"), str):
        return raw
    name = given["of"]
    mixture = load_mapping(find_recipe(name)).get("mixture")
    if not isinstance(mixture, dict) or "of" in mixture:
        raise InputError(
            f"The recipe {name!r} spells out no mixture that another one could use",
            where=f"{path}: mixture",
            fix="name a recipe with a section `mixture`, or write the section here",
        )
    return raw | {"mixture": mixture | {key: value for key, value in given.items() if key != "of"}}


def dump_recipe(recipe: Settings) -> str:
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
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
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


def _section(annotation: Any) -> Any:
    """The settings in an annotation such as ``Stage | None`` or ``tuple[Stage, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(found for inner in get_args(annotation) if (found := _section(inner)) is not None) if get_args(annotation) else None


def _recipe_error(path: Path, error: ValidationError, kind: type[Settings]) -> InputError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    where = f"{path}, key {'.'.join(location) or '(whole recipe)'}"
    if first["type"] == "extra_forbidden":
        section: Any = kind
        for part in location[:-1]:
            field = section.model_fields.get(part)  # none for a place in a list and a name in a mapping
            section = (_section(field.annotation) if field else None) or section
        return InputError(f"Unknown key {location[-1]!r}", where=where, fix=nearest(location[-1], section.model_fields))
    message = first["msg"].removeprefix("Value error, ")
    return InputError(
        f"The recipe is not valid: {message}", where=where, fix="correct this key; --print-config shows the whole recipe"
    )
