"""What is at hand: work on many tasks, of which some have no files here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mengzi_mt.errors import InputError, MengziError
from mengzi_mt.tasks.rows import DataSource, available_splits
from mengzi_mt.tasks.task import Task

Result = TypeVar("Result")


def splits_at_hand(task: Task, source: DataSource) -> list[str]:
    """The splits that can be read.

    Raises:
        InputError: there is none.
    """
    splits = available_splits(task, source)
    if not splits:
        raise InputError(
            f"No split of the task {task.name!r} is at hand", where=str(source.root),
            fix="put its official files there, name what stands in for them in a data map (--data-map), or leave the task out",
        )  # fmt: skip
    return splits


def for_each(
    tasks: Sequence[Task], source: DataSource, work: Callable[[Task], Result], *, strict: bool
) -> tuple[list[Result], list[dict[str, str]]]:
    """Do some work on each task; those that cannot be read are named with the reason.

    Args:
        tasks: in this order.
        source: where their rows come from.
        work: done on each.
        strict: a task that cannot be read is an error, and one without files is one before any work is done.

    Returns:
        The results, and ``{"task": …, "reason": …}`` for each task that could not be read.
    """
    if strict:
        for task in tasks:
            splits_at_hand(task, source)
    results, left = [], []
    for task in tasks:
        try:
            results.append(work(task))
        except MengziError as error:
            if strict:
                raise
            left.append({"task": task.name, "reason": error.paragraph()})
    return results, left
