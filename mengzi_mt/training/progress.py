"""The progress line: loss, gradient norm, learning rate, tokens a second, padding, time left; also in ``metrics.jsonl``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


class Progress:
    """Averages over the steps since the last line, printed and appended to ``metrics.jsonl``."""

    def __init__(self, run_dir: Path, steps: int, first_step: int, averages: dict[str, float] | None = None) -> None:
        self.steps = steps
        self.path = run_dir / "metrics.jsonl"
        self._live = sys.stderr.isatty()
        self._sums = {"loss": 0.0, "tokens": 0.0, "slots": 0.0, "steps": 0.0, **(averages or {})}
        self._timed_tokens = 0
        self._since = time.perf_counter()
        self._first, self._started = first_step, self._since
        self._keep_until(first_step)

    def _keep_until(self, step: int) -> None:
        """Forget lines of steps that an interrupted run had logged after the checkpoint that is resumed now."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        beside = self.path.with_suffix(".unfinished")
        beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        beside.replace(self.path)

    def step(self, loss: float, tokens: int, slots: int) -> None:
        """Count one optimiser step."""
        self._sums["loss"] += loss
        self._sums["tokens"] += tokens
        self._sums["slots"] += slots
        self._sums["steps"] += 1
        self._timed_tokens += tokens

    def averages(self) -> dict[str, float]:
        """The sums since the last line, for a resumed run to go on from."""
        return dict(self._sums)

    def line(self, step: int, gradient_norm: float, learning_rate: float, extra: dict[str, Any] | None = None) -> None:
        """Print and log the averages since the last line, after ``step`` optimiser steps."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        left = (now - self._started) / max(1, step - self._first) * (self.steps - step)
        record = {
            "step": step,
            "loss": self._sums["loss"] / max(1, self._sums["steps"]),
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "tokens_per_second": self._timed_tokens / seconds,
            "padding": 1 - self._sums["tokens"] / max(1.0, self._sums["slots"]),
            "seconds": seconds,
            **(extra or {}),
        }
        self.write(record)
        text = (
            f"step {step}/{self.steps} | loss {record['loss']:.4f} | grad {gradient_norm:.2f} | lr {learning_rate:.2e} | "
            f"{record['tokens_per_second']:,.0f} tokens/s | padding {record['padding']:.1%} | ETA {_clock(left)}"
        )
        self.say(text, transient=True)
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._timed_tokens = 0
        self._since = time.perf_counter()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record to ``metrics.jsonl``."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def say(self, text: str, transient: bool = False) -> None:
        """Print a line; a transient one is overwritten by the next where the output is a terminal."""
        if self._live:
            sys.stderr.write("\r\x1b[K" + text + ("" if transient else "\n"))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
