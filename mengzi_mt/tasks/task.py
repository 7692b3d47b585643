"""The declarative task: one ``tasks/<task>/task.yaml`` as a typed, frozen record."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from mengzi_mt.errors import InputError
from mengzi_mt.yaml_io import load_mapping

Unknown = Literal["unknown"]
FieldType = Literal["string", "integer", "number", "boolean", "strings", "label", "index", "entities", "answers", "object"]
GOLD_TYPES = frozenset({"label", "index", "entities", "answers"})

Category = Literal[
    "sentiment", "topic", "sentence_pair", "nli", "reading", "ner", "relation",
    "intent", "generation", "keyword", "cloze", "coreference",
]  # fmt: skip
MetricName = Literal["accuracy", "macro_f1", "exact_match", "char_f1", "entity_f1", "rouge", "bleu"]


def _text_keys(value: Any) -> Any:
    """YAML reads ``100:`` as a number; a raw label is compared as text."""
    if isinstance(value, dict):
        return {_as_text(key): word for key, word in value.items()}
    return value


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Title(_Spec):
    """The task's title in Chinese and English."""

    zh: str
    en: str


class Licence(_Spec):
    """The dataset's licence, and where it is stated."""

    name: str
    research_only: bool | Unknown = "unknown"
    source: str


class Hub(_Spec):
    """A dataset on the hub; ``splits`` maps our split names to its own."""

    id: str
    config: str | None = None
    revision: str | None = None
    splits: dict[str, str] = {}


class Source(_Spec):
    """Where the files are: ``path`` under the data root, official file names per split, and the hub."""

    path: str
    splits: dict[str, tuple[str, ...]]
    hub: Hub | Unknown = "unknown"


class ReaderSpec(_Spec):
    """A reader's name and its options (see :mod:`mengzi_mt.tasks.readers`)."""

    format: Literal["jsonl", "json", "csv", "tsv", "squad"]
    header: bool | tuple[str, ...] = True
    encoding: str = "utf-8"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quoting: Literal["standard", "none"] = "standard"
    skip_blank_lines: bool = False
    record_path: str | None = None

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            codecs.lookup(name)
        except LookupError:
            raise ValueError(f"the encoding {name!r} is unknown (utf-8, gb18030, utf-16, …)") from None
        return name


class FieldSpec(_Spec):
    """One example key: its type, and the dotted path of the raw record it comes from (``from``, by default the key)."""

    type: FieldType
    source: str | None = Field(default=None, alias="from")
    optional: bool = False
    shrink: bool = False


class Submission(_Spec):
    """How one line of the leaderboard's file is written."""

    file: str
    id: str = "id"
    key: str = "label"
    value: Literal["raw_string", "index"] = "raw_string"


class Task(_Spec):
    """What a dataset is. Declarative: a new dataset is one such file wherever a reader for its format exists."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: int = Field(ge=1)
    title: Title
    category: Category
    role: Literal["train", "zero_shot"]
    licence: Licence
    homepage: str = "unknown"
    citation: str = "unknown"
    source: Source
    reader: ReaderSpec
    fields: dict[str, FieldSpec]
    labels: Annotated[dict[str, str] | None, BeforeValidator(_text_keys)] = None
    label_words: dict[str, tuple[str, ...]] = {}
    metrics: tuple[MetricName, ...]
    split_sizes: dict[str, int | Unknown] | Unknown = "unknown"
    split_sizes_source: str | None = None
    group_by: tuple[str, ...] = ()
    skip_if: str | None = None
    on_bad_record: Literal["error", "skip"] = "error"
    submission: Submission | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        labels = self.labels or {}
        if any(spec.type in ("label", "entities") for spec in self.fields.values()) and not labels:
            raise ValueError("a field of type `label` or `entities` needs `labels`")
        for name, words in {"labels": tuple(labels.values()), **self.label_words}.items():
            if len(words) != len(labels):
                raise ValueError(f"label_words.{name} has {len(words)} words for {len(labels)} labels")
            twice = sorted({word for word in words if words.count(word) > 1})
            if twice:
                raise ValueError(f"{name} gives two labels the same words: {', '.join(twice)}")
        for key in self.group_by:
            if key not in self.fields:
                raise ValueError(f"group_by names {key!r}, which is no field")
        if self.submission and self.submission.id not in self.fields:
            raise ValueError(f"submission.id names {self.submission.id!r}, which is no field")
        return self

    @property
    def label_field(self) -> str | None:
        """The example key that holds the gold choice's index (type ``label`` or ``index``), if there is one."""
        return next((key for key, spec in self.fields.items() if spec.type in ("label", "index")), None)

    @property
    def gold_fields(self) -> frozenset[str]:
        """Example keys that hold answers and are absent on unlabelled splits."""
        return frozenset(key for key, spec in self.fields.items() if spec.type in GOLD_TYPES)

    @property
    def shrink_fields(self) -> frozenset[str]:
        """Example keys whose text may be cut when an example is too long."""
        return frozenset(key for key, spec in self.fields.items() if spec.shrink)

    def label_sets(self) -> dict[str, tuple[str, ...]]:
        """Label words by name: ``labels`` is the main set, ``labels.<name>`` are the sets of ``label_words``."""
        if self.labels is None:
            return {}
        sets = {"labels": tuple(self.labels.values())}
        sets.update({f"labels.{name}": words for name, words in self.label_words.items()})
        return sets

    def raw_label(self, index: int) -> str:
        """The raw value of the label at ``index`` as the dataset writes it (as text)."""
        assert self.labels is not None
        return list(self.labels)[index]


def load_task(path: Path) -> Task:
    """Read and validate one ``task.yaml``.

    Raises:
        InputError: naming file and key.
    """
    raw = load_mapping(path)
    try:
        task = Task.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"The task is not valid: {message}", where=f"{path}, key {key}", fix="correct this key") from error
    if task.name != path.parent.name:
        raise InputError(
            f"The task calls itself {task.name!r} but lies in the folder {path.parent.name!r}",
            where=str(path),
            fix="make the two equal",
        )
    return task
