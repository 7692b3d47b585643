"""What a run shows while it goes: plain lines, or a bar of ``rich`` on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol


class Display(Protocol):
    """Shows the record of each logging interval, and lines of text between them."""

    def show(self, record: Mapping[str, Any], seconds_left: float) -> None:
        """One logging interval."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def make_display(kind: str, steps: int, first_step: int) -> Display:
    """The display of ``tracking.progress``: ``auto`` is rich where standard error is a terminal."""
    if kind == "none":
        return SilentDisplay()
    if kind == "rich" or (kind == "auto" and sys.stderr.isatty()):
        return RichDisplay(steps, first_step)
    return PlainDisplay(steps)


class SilentDisplay:
    """Shows nothing but warnings."""

    def show(self, record: Mapping[str, Any], seconds_left: float) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Warnings only."""
        if text.startswith("warning:"):
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to leave."""


class PlainDisplay:
    """One line on standard error for each record."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def show(self, record: Mapping[str, Any], seconds_left: float) -> None:
        """Step, averages and time left."""
        self.say(f"step {record['step']}/{self.steps} | {summary(record)} | ETA {clock(seconds_left)}")

    def say(self, text: str) -> None:
        """The text as it is."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to leave."""


class RichDisplay:
    """A bar with the newest averages; text goes above it."""

    def __init__(self, steps: int, first_step: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        counted = Column(no_wrap=True, min_width=2 * len(str(steps)) + 1)  # a narrow terminal loses the end of the averages
        columns = (
            TextColumn("{task.completed}/{task.total}", table_column=counted),
            BarColumn(16, table_column=Column(min_width=8)),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
        self._task = self._bar.add_task("", total=steps, completed=first_step)
        self._bar.start()

    def show(self, record: Mapping[str, Any], seconds_left: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=record["step"], description=f"ETA {clock(seconds_left)} | {summary(record)}")
        self._bar.refresh()

    def say(self, text: str) -> None:
        """The text above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing, leave the last state."""
        self._bar.stop()


def summary(record: Mapping[str, Any]) -> str:
    """The averages of a logging interval as one line."""
    parts = [
        f"loss {record['loss']:.4f}",
        f"grad {record['gradient_norm']:.2f}",
        f"lr {record['learning_rate']:.2e}",
        f"{record['tokens_per_second']:,.0f} tokens/s",
    ]
    if record.get("mfu") is not None:
        parts.append(f"MFU {record['mfu']:.1%}")
    parts.append(f"padding {record['padding']:.1%}")
    if record.get("data_wait", 0.0) >= 0.005:
        parts.append(f"waiting {record['data_wait']:.1%}")
    return " | ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
