"""Raw bytes to text and lines, with errors that name file and line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from mengzi_mt.errors import InputError

_BOM = "\ufeff"


def decode(path: Path, encoding: str) -> str:
    """The whole file as text; a byte-order mark is dropped.

    Raises:
        InputError: a missing file, or bytes that the encoding does not have (with the line).
    """
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


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines cut at newlines only: U+2028 and its kin occur inside JSON strings and are no line ends there."""
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        yield number, line.rstrip("\r\n")
