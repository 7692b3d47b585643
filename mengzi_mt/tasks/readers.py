"""Readers: raw files as users download them become records with a location, one at a time.

A reader knows a format, never a dataset. Each yields ``(location, record)`` where ``location`` is the text an error
names ("line 12", "record 5") and ``record`` a mapping of raw keys to raw values.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.task import ReaderSpec

Record = dict[str, Any]
Located = tuple[str, Record]
_BOM = "\ufeff"


def read_records(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """Records of one raw file, with their places.

    Raises:
        InputError: a missing file, a wrong encoding or a record that does not parse, with file and line.
    """
    return _READERS[reader.format](path, reader)


def _decode(path: Path, encoding: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError("The data file does not exist", where=str(path), fix="check --data-dir and --data-map") from error
    except OSError as error:
        raise InputError(f"The data file cannot be read: {error.strerror}", where=str(path)) from error
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"The file is not {encoding}: byte {data[error.start]:#04x}",
            where=f"{path}, line {line}",
            fix="set `encoding` of the task's reader (gb18030 is common) or convert the file",
        ) from error
    return text.removeprefix(_BOM)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines cut at newlines only: U+2028 and its kin occur inside JSON strings and are no line ends there."""
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        yield number, line.rstrip("\r\n")


def _read_jsonl(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    for number, line in _lines(_decode(path, reader.encoding)):
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


def _read_json(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    value = _load_json(path, reader)
    for part in (reader.record_path or "").split("."):
        if part:
            value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, list):
        raise InputError(
            "The file holds no JSON array of records",
            where=f"{path}, path {reader.record_path or '(top level)'}",
            fix="check the reader's `format` and `record_path`",
        )
    for number, record in enumerate(value, start=1):
        if not isinstance(record, dict):
            raise InputError("This record is no object", where=f"{path}, record {number}", fix="repair or remove it")
        yield f"record {number}", record


def _load_json(path: Path, reader: ReaderSpec) -> Any:
    text = _decode(path, reader.encoding)
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


def _read_csv(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """Standard CSV: quoted fields may hold delimiters, doubled quotes and line breaks."""
    csv.field_size_limit(1 << 30)
    rows = csv.reader(
        io.StringIO(_decode(path, reader.encoding), newline=""),
        delimiter=reader.delimiter,
        quoting=csv.QUOTE_NONE if reader.quoting == "none" else csv.QUOTE_MINIMAL,
        strict=reader.quoting == "standard",
    )
    header: list[str] | None = None if reader.header is True else _columns(reader)
    start = 1
    try:
        for cells in rows:
            place, start = f"line {start}", rows.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header(path, cells)
                continue
            yield place, _zip_columns(path, place, header, cells)
    except csv.Error as error:
        raise InputError(
            f"The file is no CSV: {error}", where=f"{path}, line {rows.line_num}", fix="check quoting and delimiter"
        ) from error


def _read_tsv(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """Tab-separated columns without quoting; a quotation mark is only a character."""
    header: list[str] | None = None if reader.header is True else _columns(reader)
    for number, line in _lines(_decode(path, reader.encoding)):
        if not line.strip() and (reader.skip_blank_lines or not line):
            continue
        cells = line.split("\t")
        if header is None:
            header = _header(path, cells)
            continue
        yield f"line {number}", _zip_columns(path, f"line {number}", header, cells)


def _columns(reader: ReaderSpec) -> list[str]:
    if not isinstance(reader.header, tuple):
        raise InputError("A file without header needs its column names", where="reader.header", fix="list them there")
    return list(reader.header)


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"Two columns are called {twice[0]!r}", where=f"{path}, line 1", fix="give each its own name")
    return header


def _zip_columns(path: Path, place: str, header: list[str], cells: list[str]) -> Record:
    if len(cells) != len(header):
        raise InputError(
            f"This row has {len(cells)} columns, expected {len(header)} ({', '.join(header)})",
            where=f"{path}, {place}",
            fix="repair the row or the reader's `header`, `delimiter` or `quoting`",
        )
    return dict(zip(header, cells, strict=True))


def _read_squad(path: Path, reader: ReaderSpec) -> Iterator[Located]:
    """SQuAD's nesting flattened to one record a question: id, title, context, question, answers."""
    document = _load_json(path, reader)
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


_READERS: dict[str, Callable[[Path, ReaderSpec], Iterator[Located]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "squad": _read_squad,
}
