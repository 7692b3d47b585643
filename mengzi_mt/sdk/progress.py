"""A progress bar on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


@contextmanager
def progress_bar(name: str, total: int, wanted: bool | None = None) -> Iterator[Advance]:
    """Gives a function that counts what is done.

    Args:
        name: shown before the bar.
        total: of what is to be done.
        wanted: whether to show it; by default on a terminal.
    """
    if not (sys.stderr.isatty() if wanted is None else wanted) or total < 2:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=sys.stderr.isatty()) as bar:
        shown = bar.add_task(name, total=total)
        yield lambda count: bar.advance(shown, count)
