"""Readers: raw files as users download them become records with a location, one at a time.

A reader knows a format, never a dataset. Each yields ``(location, record)`` where ``location`` is the text an error
names ("line 12", "record 5") and ``record`` a mapping of raw keys to raw values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.readers_json import Located, read_json, read_json_stream, read_jsonl, read_squad
from mengzi_mt.tasks.readers_text import read_blocks, read_columns, read_csv, read_parallel, read_tsv
from mengzi_mt.tasks.task import ReaderSpec

RECORD_ID = "record_id"
"""Key of an exploded record that names the record it came from."""
HISTORY = "history"

_READERS: dict[str, Callable[[Path, ReaderSpec], Iterator[Located]]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "json_stream": read_json_stream,
    "csv": read_csv,
    "tsv": read_tsv,
    "squad": read_squad,
    "columns": read_columns,
    "blocks": read_blocks,
    "parallel": read_parallel,
}


def read_records(path: Path, reader: ReaderSpec, name: str | None = None) -> Iterator[Located]:
    """Records of one raw file, with their places.

    Args:
        path: the file.
        reader: format and options.
        name: the file's path relative to the task's folder, to which ``reader.files`` and record ids refer.

    Raises:
        InputError: a missing file, a wrong encoding or a record that does not parse, with file and line.
    """
    name = name or path.name
    options = reader.for_file(name)
    records = _READERS[options.format](path, options)
    return _exploded(path, name, options, records) if options.explode else records


def _exploded(path: Path, name: str, reader: ReaderSpec, records: Iterator[Located]) -> Iterator[Located]:
    """One record for each object in the list under ``reader.explode``, with what stands around the list."""
    key = reader.explode or ""
    for number, (place, record) in enumerate(records, start=1):
        items: Any = record.get(key)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(
                f"Under {key!r} must stand a list of objects", where=f"{path}, {place}", fix="check the reader's `explode`"
            )
        around = {name: value for name, value in record.items() if name != key}
        for position, item in enumerate(items):
            history = {HISTORY: items[:position]} if reader.history else {}
            yield f"{place}, {key} {position + 1}", {**around, RECORD_ID: f"{name}:{number}", **history, **item}
