"""What requests and answers look like: one model for each task, made from the catalogue, with every limit in it.

Each task has its own model, so the document says exactly what the server takes: the fields of the task's rows, the names of its
templates. Nothing in a request is a path, a template's text or code; templates are chosen by name from the registry's.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from mengzi_mt.prompts.template_set import load_templates
from mengzi_mt.sdk.catalogue import TASKS, DownstreamTask
from mengzi_mt.sdk.inputs import UNSEEN
from mengzi_mt.sdk.results import Classification, Entities, Keywords, Relation, Span, Text
from mengzi_mt.sdk.serve_examples import EXAMPLES, LABELS, PROMPTS, title_of

MAX_ROWS = 256
MAX_CHARACTERS = 100_000
MAX_LABELS = 128
MAX_LABEL_CHARACTERS = 64
MAX_NEW_TOKENS = 512
MAX_BEAMS = 8
MAX_STOPS = 8
MAX_STOP_CHARACTERS = 64


def _visible() -> str:
    """A regular expression, for Rust, Python and ECMAScript alike: a character that can be seen."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in UNSEEN:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    written = [f"\\u{code:04x}" if code < 0x10000 else chr(code) for pair in ranges for code in pair]
    return "[^" + "".join(f"{first}-{last}" for first, last in zip(written[::2], written[1::2], strict=True)) + "]"


VISIBLE = _visible()


def _differ(items: Sequence[Any]) -> Sequence[Any]:
    stripped = [item.strip() for item in items]
    if len(set(stripped)) < len(stripped):
        raise ValueError("Items should differ")
    return items


def _whole(value: Any) -> Any:
    """JSON has one kind of number, and 3.0 is an integer."""
    return int(value) if type(value) is float and value.is_integer() else value


_UNIQUE = {"uniqueItems": True}
Whole = Annotated[int, BeforeValidator(_whole)]
Words = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=VISIBLE)]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS, pattern=VISIBLE)]
Labels = Annotated[
    list[Label],
    Field(min_length=2, max_length=MAX_LABELS, json_schema_extra=_UNIQUE, examples=[list(LABELS)]),
    AfterValidator(_differ),
]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS, pattern=VISIBLE)]


class Strict(BaseModel):
    """Base of requests: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Writing(Strict):
    """How answers are generated."""

    max_new_tokens: Whole = Field(128, ge=1, le=MAX_NEW_TOKENS, description="Tokens of a generated answer at most.")
    beams: Whole = Field(1, ge=1, le=MAX_BEAMS, description="Of the beam search; 1 is greedy.")
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS), BeforeValidator(_whole)] | None = Field(
        None,
        description="No so many tokens in a row come twice in an answer; 0 lets them. By default 3 where texts are written.",
    )


WRITING = tuple(Writing.model_fields)
"""Options of generation."""


class Streamed(Writing):
    """How answers that can be streamed are generated."""

    stream: bool = Field(
        False,
        description="Send the answers piece by piece, as server-sent events. An answer that needs several templates or a beam "
        "search comes in one piece.",
    )


class GenerateRequest(Streamed):
    """Free prompts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompts": list(PROMPTS[:1]), "max_new_tokens": 48}]})

    prompts: list[Words] = Field(min_length=1, max_length=MAX_ROWS, description="As they are; too long ones are cut at their end.")
    stop: list[Stop] = Field([], max_length=MAX_STOPS, description="Texts that end an answer; they are no part of it.")


TEMPLATES = {name: tuple(task.template_names()) for name, task in TASKS.items()}
"""Of each task, the default first."""


def request_of(task: DownstreamTask) -> Any:
    """The model of requests for a task."""
    names = TEMPLATES[task.name]
    inputs: dict[str, Any] = {name: (Words | None, None) if name in task.optional else (Words, ...) for name in task.inputs}
    row: Any = create_model(f"{_camel(task.name)}Row", __base__=Strict, __doc__=f"{task.title}：一条输入。", **inputs)
    template: Any = Literal[names]  # type: ignore[valid-type]
    several = Annotated[
        list[template], Field(min_length=1, max_length=len(names), json_schema_extra=_UNIQUE), AfterValidator(_differ)
    ]
    number = Annotated[int, Field(ge=1, le=len(names)), BeforeValidator(_whole)]
    fields: dict[str, Any] = {
        "task": (Literal[task.name], ...),
        "rows": (list[row], Field(min_length=1, max_length=MAX_ROWS, description="Inputs of the task, by name.")),
        "templates": (
            number | template | several,
            Field(1, description="How many of the task's templates to ask (the first so many), or one by name, or several."),
        ),
        "vote": (
            Literal["mean", "majority"],
            Field("mean", description="How several templates decide: by the mean log-probability, or by most of their answers."),
        ),
    }
    if task.own_labels:
        fields["labels"] = (Labels, ...)
    base = Streamed if task.kind == "text" else Strict if task.kind in ("label", "relation") else Writing
    return create_model(f"{_camel(task.name)}Request", __base__=base, __doc__=f"{task.title}。", **fields)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


REQUESTS = {name: request_of(task) for name, task in TASKS.items()}
PredictRequest = Annotated[Union[tuple(REQUESTS.values())], Field(discriminator="task")]  # type: ignore[valid-type] # noqa: UP007


class PredictResponse(BaseModel):
    """A result for each row, in order."""

    model: str
    task: str
    results: list[Relation | Classification | Entities | Span | Keywords | Text]


class GenerateResponse(BaseModel):
    """An answer to each prompt, in order."""

    model: str
    results: list[Text]


class InputField(BaseModel):
    """What a row holds."""

    name: str
    title: str
    required: bool


class TemplateInfo(BaseModel):
    """A template of the registry, to be chosen by its name."""

    name: str
    wording: str


class TaskInfo(BaseModel):
    """A task, and what it takes."""

    name: str
    title: str
    kind: str
    inputs: list[InputField]
    labels: list[str] = Field(description="Of a classification, or the types of entities; none where the caller gives them.")
    own_labels: bool
    streams: bool
    templates: list[TemplateInfo] = Field(description="The default first.")
    examples: list[dict[str, Any]] = Field(description="Bodies for /v1/predict.")


class TaskList(BaseModel):
    """Every task."""

    model: str
    tasks: list[TaskInfo]


def task_info(task: DownstreamTask) -> TaskInfo:
    """What a caller needs to know about a task."""
    labels = {"labels": list(LABELS)} if task.own_labels else {}
    wordings = load_templates(task.registry)
    return TaskInfo(
        name=task.name,
        title=task.title,
        kind=task.kind,
        inputs=[InputField(name=name, title=title_of(task.name, name), required=name not in task.optional) for name in task.inputs],
        labels=list(task.labels),
        own_labels=task.own_labels,
        streams=task.kind == "text",
        templates=[TemplateInfo(name=name, wording=wordings[name].jinja) for name in TEMPLATES[task.name]],
        examples=[{"task": task.name, "rows": [dict(example)], **labels} for example in EXAMPLES[task.name]],
    )


INFOS = {name: task_info(task) for name, task in TASKS.items()}


class State(BaseModel):
    """Whether the server lives, or takes requests."""

    status: str
    model: str


class ErrorDetail(BaseModel):
    """What is wrong.

    Attributes:
        code: for programs.
        message: in one sentence.
        where: the place in the request.
        fix: what to do.
    """

    code: str
    message: str
    where: str | None
    fix: str | None


class ErrorBody(BaseModel):
    """Every answer that is no result."""

    error: ErrorDetail
