"""What callers give: checked before any model sees it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.sdk.catalogue import DownstreamTask

UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp"}


def check_text(value: Any, where: str) -> str:
    """A text with something to see in it.

    Raises:
        InputError: something else.
    """
    if not isinstance(value, str):
        raise InputError(f"Expected a text, found {kind_of(value)}", where=where, fix="give a str")
    if all(unicodedata.category(character) in UNSEEN for character in value):
        raise InputError("The text is empty", where=where, fix="leave it out, or give a text")
    return value


def check_rows(task: DownstreamTask, rows: Sequence[Any]) -> list[dict[str, str]]:
    """The inputs of every row, by the names of the task.

    Raises:
        InputError: names the row (from 0) and the input.
    """
    return [_check_row(task, row, f"{task.name}, row {number}") for number, row in enumerate(rows)]


def _check_row(task: DownstreamTask, row: Any, where: str) -> dict[str, str]:
    if not isinstance(row, Mapping):
        raise InputError(f"Expected the inputs by name, found {kind_of(row)}", where=where, fix=f"give {', '.join(task.inputs)}")
    for name in row:
        if name not in task.inputs:
            raise InputError(f"The task has no input {name!r}", where=where, fix=nearest(str(name), task.inputs))
    checked = {}
    for name in task.inputs:
        if row.get(name) is None:
            if name in task.optional:
                continue
            raise InputError(f"The input {name!r} is missing", where=where, fix=f"give {', '.join(task.inputs)}")
        if row[name] != "" or name not in task.optional:
            checked[name] = check_text(row[name], f"{where}, input {name!r}")
    return checked


def check_labels(labels: Any, where: str) -> tuple[str, ...]:
    """At least two labels that differ.

    Raises:
        InputError: anything else.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InputError(f"Expected a list of labels, found {kind_of(labels)}", where=where, fix="give a list of texts")
    checked = tuple(check_text(label, f"{where}, label {number}").strip() for number, label in enumerate(labels))
    if len(checked) < 2:
        raise InputError("At least two labels are needed to choose from", where=where, fix="give more labels")
    twice = sorted({label for label in checked if checked.count(label) > 1})
    if twice:
        raise InputError(f"Labels are given more than once: {', '.join(twice)}", where=where, fix="give each of them once")
    return checked


def rows_of(arguments: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """Rows of arguments that are texts or lists of texts, and whether any was a list. A text goes with every item of a list.

    Raises:
        InputError: lists of different lengths.
    """
    lists = {name: value for name, value in arguments.items() if isinstance(value, (list, tuple))}
    sizes = {len(value) for value in lists.values()}
    if len(sizes) > 1:
        found = ", ".join(f"{name}: {len(value)}" for name, value in lists.items())
        raise InputError("The lists are not of equal length", where=found, fix="give lists of equal length, or a single text")
    count = sizes.pop() if sizes else 1
    return [
        {name: lists[name][place] if name in lists else value for name, value in arguments.items()} for place in range(count)
    ], bool(lists)


def kind_of(value: Any) -> str:
    """What something is, for an error."""
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"[:60]
