"""From a raw record to an example: every declared field is fetched, checked and converted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mengzi_mt.errors import nearest
from mengzi_mt.tasks.task import Task

_MISSING = object()


class BadRecord(ValueError):  # noqa: N818
    """A record that does not read as its task says; carries the field and what is wrong with it."""

    def __init__(self, field: str, problem: str, fix: str = "repair or remove the record") -> None:
        super().__init__(f"field {field!r}: {problem}")
        self.field = field
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Converted:
    """An example's values, and how many of its answer offsets had to be found by search."""

    values: dict[str, Any]
    repaired: int = 0


def convert_record(task: Task, record: dict[str, Any]) -> Converted:
    """The example that a raw record reads as.

    Gold fields (labels, answers, entities) are left out where the record has none, as on unlabelled test splits.

    Raises:
        BadRecord: a missing field, a wrong type, an unknown label.
    """
    values: dict[str, Any] = {}
    repaired = 0
    gold = task.gold_fields
    for key, spec in task.fields.items():
        raw = _fetch(record, spec.source or key)
        if raw is _MISSING or raw is None:
            if spec.optional or key in gold:
                continue
            raise BadRecord(key, f"the record has no {spec.source or key!r}", "add it, or mark the field `optional: true`")
        values[key] = _CONVERT[spec.type](task, key, raw)
        if spec.type == "answers":
            values[key], repaired = _check_answers(values.get("context"), values[key])
    return Converted(values, repaired)


def _fetch(record: Any, path: str) -> Any:
    value = record
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _string(task: Task, key: str, raw: Any) -> str:
    if isinstance(raw, str):
        return raw.strip().removeprefix("\ufeff").lstrip()
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return str(raw)
    raise BadRecord(key, f"expected text, found {_kind(raw)}")


def _integer(task: Task, key: str, raw: Any) -> int:
    try:
        if isinstance(raw, bool) or (isinstance(raw, float) and not raw.is_integer()):
            raise ValueError
        return int(raw)
    except (TypeError, ValueError, OverflowError):
        raise BadRecord(key, f"expected an integer, found {raw!r}") from None


def _number(task: Task, key: str, raw: Any) -> float:
    try:
        return float(raw)
    except (TypeError, ValueError):
        raise BadRecord(key, f"expected a number, found {raw!r}") from None


def _boolean(task: Task, key: str, raw: Any) -> bool:
    value = {"true": True, "1": True, "false": False, "0": False}.get(str(raw).lower())
    if value is None:
        raise BadRecord(key, f"expected true or false, found {raw!r}")
    return value


def _strings(task: Task, key: str, raw: Any) -> list[str]:
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise BadRecord(key, f"expected a list of texts, found {_kind(raw)}")
    return [item.strip() for item in raw]


def _label(task: Task, key: str, raw: Any) -> int:
    text = str(raw).lower() if isinstance(raw, bool) else str(raw).strip()
    known = list(task.labels or {})
    try:
        return known.index(text)
    except ValueError:
        raise BadRecord(key, f"the label {text!r} is unknown", nearest(text, known)) from None


def _index(task: Task, key: str, raw: Any) -> int:
    value = _integer(task, key, raw)
    if value < 0:
        raise BadRecord(key, f"expected an index from 0, found {value}")
    return value


def _entities(task: Task, key: str, raw: Any) -> list[dict[str, Any]]:
    """CLUENER's ``{type: {mention: [[start, inclusive end], …]}}`` as spans with exclusive ends, in order."""
    labels = task.labels or {}
    spans: list[dict[str, Any]] = []
    if not isinstance(raw, dict):
        raise BadRecord(key, f"expected an object of entity types, found {_kind(raw)}")
    for entity_type, mentions in raw.items():
        if entity_type not in labels:
            raise BadRecord(key, f"the entity type {entity_type!r} is unknown", nearest(entity_type, labels))
        if not isinstance(mentions, dict):
            raise BadRecord(key, f"expected mentions under {entity_type!r}, found {_kind(mentions)}")
        for mention, places in mentions.items():
            try:
                for start, end in places:
                    spans.append({"text": mention, "type": labels[entity_type], "start": int(start), "end": int(end) + 1})
            except (TypeError, ValueError):
                raise BadRecord(key, f"the places of {mention!r} are no [[start, end], …]: {places!r}") from None
    return sorted(spans, key=lambda span: (span["start"], span["end"], span["type"]))


def _answers(task: Task, key: str, raw: Any) -> list[dict[str, Any]]:
    if not isinstance(raw, list) or not raw:
        raise BadRecord(key, "expected a list of at least one answer")
    answers = []
    for answer in raw:
        if not isinstance(answer, dict) or not str(answer.get("text", "")).strip():
            raise BadRecord(key, "an answer without text")
        text, start = str(answer["text"]), _integer(task, key, answer.get("answer_start", -1))
        if start >= 0:
            start += len(text) - len(text.lstrip())
        answers.append({"text": text.strip(), "start": start})
    return answers


def _check_answers(context: str | None, answers: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Answers whose offset points at their text; a wrong one is replaced by the nearest place of the text (or -1)."""
    if context is None:
        return answers, 0
    checked, repaired = [], 0
    for answer in answers:
        text, start = answer["text"], answer["start"]
        if start < 0 or context[start : start + len(text)] != text:
            repaired += 1
            places = [i for i in range(len(context)) if context.startswith(text, i)]
            start = min(places, key=lambda place: abs(place - answer["start"]), default=-1)
        checked.append({"text": text, "start": start})
    return checked, repaired


def _object(task: Task, key: str, raw: Any) -> Any:
    return raw


def _kind(raw: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "true/false"}.get(type(raw), type(raw).__name__)


_CONVERT: dict[str, Callable[[Task, str, Any], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
    "label": _label,
    "index": _index,
    "entities": _entities,
    "answers": _answers,
    "object": _object,
}
