"""The hub as second source: a dataset that a task declares under ``source.hub``, through the ``datasets`` library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.tasks.task import Task


def hub_records(task: Task, split: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Raw records of a hub dataset's split; ``source.hub.id`` may also be a local folder in the hub's layout.

    Raises:
        InputError: a task without hub id, an unknown split, or a dataset that cannot be had.
    """
    hub = task.source.hub
    if hub == "unknown":
        raise InputError(
            f"The task {task.name!r} names no hub dataset", where=f"tasks/{task.name}/task.yaml, key source.hub",
            fix="use local files (--data-dir)",
        )  # fmt: skip
    from datasets import load_dataset

    hub_split = hub.splits.get(split, split)
    try:
        dataset = load_dataset(hub.id, hub.config, split=hub_split, revision=hub.revision)
    except ValueError as error:
        raise InputError(
            f"The hub dataset {hub.id!r} gives no split {hub_split!r}: {error}", where=f"task {task.name!r}",
            fix=nearest(split, hub.splits or [hub_split]),
        ) from error  # fmt: skip
    except Exception as error:  # the library raises many kinds for an unreachable or unknown dataset
        raise InputError(
            f"The hub dataset {hub.id!r} cannot be loaded: {type(error).__name__}: {error}", where=f"task {task.name!r}",
            fix="check the network, or download the official files and use --data-dir",
        ) from error  # fmt: skip
    for number, record in enumerate(dataset, start=1):
        yield f"{hub.id}/{hub_split}:{number}", f"hub dataset {hub.id}, split {hub_split}, record {number}", dict(record)
