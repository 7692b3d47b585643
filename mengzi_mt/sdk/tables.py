"""Rows of JSONL, CSV and plain text files, in and out, and what an interrupted output already holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

from mengzi_mt.errors import InputError, nearest

Format = Literal["jsonl", "csv", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "text"}
TEXT_COLUMN = "text"
"""What a line of a plain text file is called."""
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Line:
    """A row and where it stands: file and line."""

    where: str
    values: dict[str, Any]


def format_of(name: str, given: str | None, default: Format) -> Format:
    """The format that is named, else the one of the file's ending, else the default.

    Raises:
        InputError: an unknown one.
    """
    if given is not None:
        found = next((one for one in FORMATS if one == given), None)
        if found is None:
            raise InputError(f"Unknown format {given!r}", where="--format", fix=f"use {', '.join(FORMATS)}")
        return found
    return _SUFFIXES.get(Path(name).suffix.lower(), default)


def read_lines(file: IO[bytes], name: str, kind: Format) -> Iterator[Line]:
    """The rows of a file; blank lines are none.

    Raises:
        InputError: names file and line.
    """
    if kind == "csv":
        yield from _csv_lines(file, name)
        return
    for number, raw in enumerate(file, start=1):
        where = f"{name}, line {number}"
        text = _decoded(raw, where).rstrip("\r\n")
        if number == 1:
            text = text.removeprefix("\ufeff")
        if not text.strip():
            continue
        yield Line(where, {TEXT_COLUMN: text} if kind == "text" else _json_object(text, where))


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The line is no JSON: {error}", where=where, fix="write one object a line") from error
    if not isinstance(found, dict):
        raise InputError("The line is no JSON object", where=where, fix='write {"text": …}')
    return found


def _csv_lines(file: IO[bytes], name: str) -> Iterator[Line]:
    texts = (_decoded(raw, f"{name}, line {number}") for number, raw in enumerate(file, start=1))
    reader = csv.reader(texts, strict=True)
    header: list[str] | None = None
    begin = 1
    try:
        for cells in reader:
            where, begin = f"{name}, line {begin}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [cells[0].removeprefix("\ufeff"), *cells[1:]]
                if len(set(header)) != len(header):
                    raise InputError("Two columns have the same name", where=where, fix="rename one of them")
                continue
            if len(cells) != len(header):
                raise InputError(f"The row has {len(cells)} cells for {len(header)} columns", where=where, fix="repair the row")
            yield Line(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"The row does not read: {error}", where=f"{name}, line {begin}", fix="repair the row") from error


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"The line is no UTF-8: {error.reason}", where=where, fix="convert the file to UTF-8") from error


def inputs_of(line: Line, columns: Mapping[str, str], optional: Sequence[str]) -> dict[str, Any]:
    """A task's inputs, by the columns that hold them.

    Raises:
        InputError: a column is not there.
    """
    found = {}
    for name, column in columns.items():
        if column in line.values:
            found[name] = line.values[column]
        elif name not in optional:
            raise InputError(
                f"The row has no column {column!r}", where=line.where,
                fix=f"{nearest(column, line.values)}; name it with --column {name}=COLUMN",
            )  # fmt: skip
    return found


class Output:
    """Rows written to a file, each followed by its answer.

    JSONL rows get the whole result under the task's name; CSV rows a column with the answer and, of classifications, one with its
    probability.
    """

    def __init__(self, file: IO[bytes], kind: Format, task: str) -> None:
        self.file, self.kind, self.task = file, kind, task
        self.header: list[str] | None = None

    def write(self, lines: Sequence[Line], results: Sequence[dict[str, Any] | None]) -> None:
        """Append rows; those without a result have an empty one.

        Raises:
            InputError: a row has a column of the task's name, or other columns than the first.
        """
        written = [self._text(line, result) for line, result in zip(lines, results, strict=True)]
        self.file.write("".join(written).encode())
        self.file.flush()

    def _text(self, line: Line, result: dict[str, Any] | None) -> str:
        if self.task in line.values:
            raise InputError(f"The row has a column {self.task!r} already", where=line.where, fix="rename the column")
        if self.kind != "csv":
            return _json_line({**line.values, self.task: result})
        cells = {**line.values, **_cells(self.task, result)}
        text = ""
        if self.header is None:
            self.header = list(cells)
            text = _csv_row(self.header) if self.file.tell() == 0 else ""
        if list(cells) != self.header:
            raise InputError(
                "The row has other columns than the first one", where=line.where, fix="write JSONL (--output NAME.jsonl)"
            )
        return text + _csv_row(list(cells.values()))


def _json_line(values: Mapping[str, Any]) -> str:
    """One line; a lone surrogate, which no UTF-8 text has, is escaped as it was in the input."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(values)
    return text + "\n"


def _cells(task: str, result: dict[str, Any] | None) -> dict[str, Any]:
    """What a CSV shows of a result; equal columns for every result of a task."""
    found = result or {}
    answer = next((found[key] for key in ("label", "text", "keywords", "entities") if key in found), "")
    cells = {task: answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)}
    return {**cells, f"{task}_probability": found.get("probability", "")} if _ranked(task) else cells


def _ranked(task: str) -> bool:
    from mengzi_mt.sdk.catalogue import find_task

    return find_task(task).kind in ("label", "relation")


def _csv_row(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


@dataclass(frozen=True)
class Written:
    """What an output holds: complete rows, their bytes, and the last of them."""

    rows: int
    size: int
    last: dict[str, Any] | None


def already_written(path: Path, kind: Format) -> Written:
    """The complete rows of an output; a row that was half written is left out.

    A line break inside of quotation marks does not end a CSV row: an even number of marks stands before one that does.
    """
    if not path.is_file():
        return Written(0, 0, None)
    records = size = place = marks = 0
    last, current = b"", b""
    header = b""
    with path.open("rb") as file:
        for raw in file:
            place += len(raw)
            current += raw
            marks += raw.count(b'"') if kind == "csv" else 0
            if raw.endswith(b"\n") and marks % 2 == 0:
                if kind == "csv" and not header:
                    header = current
                else:
                    records, last = records + 1, current
                size, current = place, b""
    if not records:
        return Written(0, 0, None)
    [line] = list(read_lines(io.BytesIO(header + last), str(path), kind))
    return Written(records, size, line.values)


def check_same(written: Written, line: Line, task: str, path: Path) -> None:
    """Whether an output's last row was made of this row by this task.

    Raises:
        InputError: it was not: another input, or another task.
    """
    last = written.last or {}
    same = task in last and all(str(last.get(name)) == str(value) for name, value in line.values.items())
    if not same:
        raise InputError(
            f"The output holds {written.rows} rows that do not belong to this input and task ({line.where})", where=str(path),
            fix="name another output, or write it anew (--fresh)",
        )  # fmt: skip
