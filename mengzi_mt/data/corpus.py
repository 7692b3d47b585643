"""Corpora: JSON lines with a ``text``, one document a line, or plain text, one document a line; plain or compressed."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mengzi_mt.errors import InputError

_OPENERS: dict[str, Callable[..., IO[Any]]] = {".xz": lzma.open, ".gz": gzip.open}


def check_corpus(path: Path) -> None:
    """Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError("The corpus file does not exist", where=str(path), fix="check the path")


def read_corpus(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of a ``.jsonl`` (key ``text``) or ``.txt`` file, also ``.xz`` or ``.gz``; empty lines are passed over.

    Raises:
        InputError: a missing or damaged file, or a line without ``{"text": …}``, with the line.
    """
    check_corpus(path)
    is_json = ".jsonl" in path.suffixes
    try:
        with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _text(path, number, line) if is_json else line.rstrip("\n")
    except (OSError, UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"The corpus file cannot be read: {error}", where=str(path), fix="check or download it again") from error


def read_texts(paths: Iterable[Path]) -> Iterator[str]:
    """The texts of several corpus files, one after the other."""
    for path in paths:
        for _, text in read_corpus(path):
            yield text


def _text(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (json.JSONDecodeError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise InputError('The line has no {"text": …}', where=f"{path}, line {number}", fix="repair or remove it")
    return text
