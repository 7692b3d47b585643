"""Readers of JSON in the shapes it comes in: one object a line, one array, objects one after another, SQuAD's nesting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.raw_text import decode, lines
from mengzi_mt.tasks.task import ReaderSpec

Record = dict[str, Any]
Located = tuple[str, Record]


def read_jsonl(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """One object a line."""
    for number, line in lines(decode(path, reader.encoding)):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"This line is no JSON object: {error.msg} at column {error.colno}",
                where=f"{path}, line {number}",
                fix="repair or remove the line",
            ) from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
            raise InputError(f"This line cannot be read: {error}", where=f"{path}, line {number}", fix="remove it") from error
        if not isinstance(record, dict):
            raise InputError(
                f"This line holds a {type(record).__name__}, not an object",
                where=f"{path}, line {number}",
                fix='write one {"key": value, …} a line',
            )
        yield f"line {number}", record


def read_json(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """One array of records, at the top or at ``record_path``; with ``keyed``, an object of records."""
    value = load_json(path, reader)
    for part in (reader.record_path or "").split("."):
        if part:
            value = value.get(part) if isinstance(value, dict) else None
    if reader.keyed and isinstance(value, dict):
        value = [{reader.keyed: key, **record} if isinstance(record, dict) else record for key, record in value.items()]
    if not isinstance(value, list):
        raise InputError(
            f"The file holds no JSON {'object' if reader.keyed else 'array'} of records",
            where=f"{path}, path {reader.record_path or '(top level)'}",
            fix="check the reader's `format` and `record_path`",
        )
    for number, record in enumerate(value, start=1):
        if reader.columns and isinstance(record, list):
            if len(record) != len(reader.columns):
                raise InputError(
                    f"This record has {len(record)} parts, expected {len(reader.columns)} ({', '.join(reader.columns)})",
                    where=f"{path}, record {number}",
                    fix="repair it, or the reader's `columns`",
                )
            record = dict(zip(reader.columns, record, strict=True))
        if not isinstance(record, dict):
            raise InputError("This record is no object", where=f"{path}, record {number}", fix="repair or remove it")
        yield f"record {number}", record


def read_json_stream(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """Objects one after another, over any number of lines each."""
    text = decode(path, reader.encoding)
    decoder, place, number = json.JSONDecoder(), 0, 0
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        if place == len(text):
            return
        number += 1
        line = text.count("\n", 0, place) + 1
        try:
            record, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InputError(
                f"Record {number} is no JSON object: {error.msg}", where=f"{path}, line {error.lineno}, column {error.colno}",
                fix="repair or remove it",
            ) from error  # fmt: skip
        except (ValueError, RecursionError) as error:
            raise InputError(f"Record {number} cannot be read: {error}", where=f"{path}, line {line}", fix="remove it") from error
        if not isinstance(record, dict):
            raise InputError("This record is no object", where=f"{path}, line {line}", fix="repair or remove it")
        yield f"line {line}", record


def load_json(path: Path, reader: ReaderSpec) -> Any:
    """The file as one JSON document."""
    text = decode(path, reader.encoding)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The file is no JSON document: {error.msg}",
            where=f"{path}, line {error.lineno}, column {error.colno}",
            fix="repair it, or choose the reader's `format: jsonl` for one object a line",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise InputError(f"The file cannot be read: {error}", where=str(path), fix="repair it") from error


def read_squad(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """SQuAD's nesting flattened to one record a question: id, title, context, question, answers."""
    document = load_json(path, reader)
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise InputError(
            "The file has no `data` array, so it is not SQuAD style", where=str(path), fix="check the reader's `format`"
        )
    number = 0
    for article in document["data"]:
        for paragraph in _objects(path, article, "paragraphs"):
            for question in _objects(path, paragraph, "qas"):
                number += 1
                place = f"question {number}"
                for needed, owner in (("context", paragraph), ("question", question)):
                    if not isinstance(owner, dict) or needed not in owner:
                        raise InputError(f"This question has no {needed!r}", where=f"{path}, {place}", fix="repair or remove it")
                record = {
                    "id": question.get("id", str(number)),
                    "title": article.get("title", ""),
                    "context": paragraph["context"],
                    "question": question["question"],
                }
                if "answers" in question:
                    record["answers"] = question["answers"]
                yield place, record


def _objects(path: Path, owner: Any, key: str) -> list[Any]:
    """The list under a key of SQuAD's nesting; a missing one is empty."""
    value = owner.get(key, []) if isinstance(owner, dict) else None
    if not isinstance(value, list):
        raise InputError(f"Here must stand an object with a list `{key}`", where=str(path), fix="check the reader's `format`")
    return value
