"""The schema of a pipeline's ``results.json`` (``mengzi-mt/compression/1``): a teacher, its forms, what each is worth and costs.

``docs/compression.schema.json`` is made of these models:
``python -m mengzi_mt.compression.pipeline_results docs/compression.schema.json``.
Scores and shares are in 0..1, times of inputs in milliseconds, memory and sizes in bytes; what was not measured is null.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mengzi_mt.errors import InputError

PIPELINE_SCHEMA = "mengzi-mt/compression/1"
Interval = tuple[float, float]
Count = int
Verdict = Literal["reference", "lower", "higher", "no difference shown"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Memory(_Entry):
    """Of a fresh process that loads the form, then scores and generates one batch."""

    peak: Count
    """How far resident memory rose above ``before`` at most: weights, loading, activations; without Python and torch."""
    before: Count
    """Resident when all libraries were imported."""


class Speed(_Entry):
    """Scoring or greedy generation, all forms in turn on the same rows. Ratios are to transformers in float32 with the teacher."""

    per_second: float
    """Inputs a second in batches, wall time: of the median round."""
    times_throughput: float
    """Median over rounds of the ratio of wall times in batches."""
    p50_ms: float
    """Median wall time of an input alone."""
    p95_ms: float
    """95th percentile of the same."""
    times_latency: float
    """Median over inputs of the ratio of wall times alone: how many times shorter it waits."""
    processor_ms: float
    """Processor time of an input in batches: of the median round. Other programs hardly change it."""
    times_processor: float
    """Median over rounds of its ratio."""
    same_answers: float
    """Share of inputs with the best choice, or the text, of transformers with the teacher."""
    inputs: Count
    """Timed in batches."""
    alone: Count
    """Timed alone."""
    rounds: Count
    """Of both."""


class TaskScore(_Entry):
    """One task; the teacher has no difference to itself."""

    task: str
    """Its name."""
    metric: str
    """Of the score."""
    rows: Count
    """That all forms have."""
    chance: float | None
    """Of guessing; null where answers are generated."""
    score: float
    """Median over templates."""
    interval: Interval
    """95%, over rows."""
    difference: float | None
    """To the teacher."""
    difference_interval: Interval | None
    """95%, paired: rows drawn once for both."""
    verdict: Verdict
    """``lower`` or ``higher`` only where the difference's interval does not hold 0."""


class SuiteScore(_Entry):
    """One form on one suite."""

    suite: str
    """Its name."""
    score: float
    """Mean over tasks."""
    interval: Interval
    """95%, over the rows of each task."""
    kept: float | None
    """Share of the teacher's score; null where that is 0."""
    kept_interval: Interval | None
    """95%, paired bootstrap of the share."""
    difference: float | None
    """To the teacher."""
    difference_interval: Interval | None
    """95%, paired."""
    p: float | None
    """Two-sided, of the difference."""
    verdict: Verdict
    """``lower`` or ``higher`` only where the difference's interval does not hold 0."""
    tasks: list[TaskScore]
    """In the suite's order."""


class FormResult(_Entry):
    """The teacher, transformers with it, or a form."""

    name: str
    """Unique here."""
    label: str
    """The same in words."""
    of: Literal["teacher", "compressed"]
    """Whose weights it has: the teacher's, or those of what the stages made of it."""
    stage: str | None
    """That made it; null of the teacher itself."""
    place: str
    """Folder, below the pipeline's where it is there."""
    runtime: str
    """What runs it."""
    precision: str
    """Of its products."""
    parameters: Count
    """How many."""
    bytes: Count
    """Of its weights on the disk; of ``transformers`` float32 what they take in float32."""
    folder_bytes: Count
    """Of the whole folder, tokenizer included."""
    smaller: float
    """The teacher's parameters in float32, over ``bytes``."""
    memory: Memory | None
    """Peak memory."""
    score: Speed | None
    """Scoring of choices; null where no timed row has choices."""
    generate: Speed
    """Greedy generation."""
    suites: list[SuiteScore]
    """In the recipe's order; of ``transformers`` those of the teacher, whose weights it runs."""
    frontier: dict[str, bool]
    """Against ``latency``, ``bytes``: whether no other form is at least as good in both and better in one, by point values."""


class StageCost(_Entry):
    """One stage."""

    stage: str
    """Its name."""
    source: str
    """Stage whose result it took."""
    folder: str
    """Below the pipeline's."""
    seconds: float
    """Wall time over all interruptions."""
    settings: dict[str, Any]
    """What it was fingerprinted by."""


class SuiteInfo(_Entry):
    """What a suite's scores are of."""

    suite: str
    """Its name."""
    kind: Literal["held-in", "zero-shot", "mixed"]
    """Whether its tasks are training tasks (rows held out), kept out of training, or both."""
    tasks: list[str]
    """Evaluated."""
    split: str
    """Of the suite; a task may have another."""
    limit: Count | None
    """Rows a task at most."""
    seed: Count | None
    """Of their draw."""
    max_templates: Count | None
    """Templates a task at most."""
    warnings: list[str]
    """What must be known of the comparison."""


class Machine(_Entry):
    """Where it was measured."""

    processor: str
    """Its name."""
    cores: Count
    """That this process may use."""
    threads: Count
    """Of every form."""
    system: str
    """Operating system."""
    load_before: float | None
    """Mean number of running processes in the minute before the times were taken, all programs counted."""
    load_after: float | None
    """In the last minute of it."""
    busy: bool
    """Whether other programs wanted more cores than were left: a load above the cores, before or after."""


class Data(_Entry):
    """Where rows came from."""

    source: Literal["files", "sample", "hub"]
    """Real files, bundled samples (no benchmark), or the hub."""
    note: str | None
    """What a reader must know of it."""


class PipelineResults(_Entry):
    """A pipeline's report as data."""

    schema_: Literal["mengzi-mt/compression/1"] = Field(alias="schema")
    """Name and version of this schema."""
    created: str
    """ISO 8601 time."""
    name: str
    """The recipe's."""
    description: str
    """The recipe's."""
    teacher: str
    """As the recipe names it."""
    data: Data
    """Of training, suites and times."""
    machine: Machine
    """Where times and memory were measured."""
    versions: dict[str, str]
    """Of the libraries."""
    settings: dict[str, Any]
    """``measure`` of the recipe."""
    suites: list[SuiteInfo]
    """What was scored."""
    forms: list[FormResult]
    """``transformers`` with the teacher first, then the teacher, its forms, and what the stages made."""
    stages: list[StageCost]
    """In order, this measuring last."""


def check_results(results: Mapping[str, Any], where: str = "results.json") -> None:
    """Refuse what is not the results of a pipeline by this version.

    Raises:
        InputError: another schema, or a key that is missing, unknown or of another type; it names file and key.
    """
    if results.get("schema") != PIPELINE_SCHEMA:
        raise InputError(
            f"The results have the schema {results.get('schema')!r}, this version reads {PIPELINE_SCHEMA!r}",
            where=f"{where}, key schema", fix="measure again with this version",
        )  # fmt: skip
    try:
        PipelineResults.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"The results are not valid: {first['msg']}", where=f"{where}, key {key}", fix="measure again") from error


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of ``results.json``."""
    schema = PipelineResults.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": PIPELINE_SCHEMA, **schema}


def schema_text() -> str:
    """The published file's content."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
