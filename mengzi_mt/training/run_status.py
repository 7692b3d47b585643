"""``status.json`` and ``metrics.jsonl`` of a run folder: what a run writes for those who watch it, now and later."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

METRICS = "metrics.jsonl"
STATUS = "status.json"
STALE_SECONDS = 1_800
"""A run on another machine that has written nothing for so long counts as interrupted."""

MEASURED = frozenset(
    [
        "seconds",
        "step_seconds",
        "tokens_per_second",
        "data_wait",
        "elapsed",
        "time",
        "flops_per_second",
        "mfu",
        "memory_mib",
        "cuda_memory_mib",
        "cuda_reserved_mib",
    ]
)
"""Keys of a record that are measured. All others of a resumed run equal those of an uninterrupted one."""

Outcome = Literal["running", "finished", "interrupted", "failed"]


def now() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, in the order of steps, each step's lines once."""

    def __init__(self, run_dir: Path, first_step: int) -> None:
        self.path = run_dir / METRICS
        self._keep_until(first_step)

    def _keep_until(self, step: int) -> None:
        """Forget torn lines, and those that an interrupted run logged after the checkpoint that is resumed now."""
        if not self.path.is_file():
            return
        kept = [json.dumps(record, ensure_ascii=False) for record in read_metrics(self.path) if record["step"] <= step]
        beside = self.path.with_suffix(".unfinished")
        beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        beside.replace(self.path)

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole records of a ``metrics.jsonl``; a torn line (a killed run's last one) is passed over."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def write_status(run_dir: Path, outcome: Outcome, step: int, steps: int, more: dict[str, Any] | None = None) -> None:
    """Write ``status.json`` beside and rename it: who runs here, how far it is, and how it ended."""
    status = {
        "outcome": outcome,
        "step": step,
        "steps": steps,
        "updated": now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": _process_start(os.getpid()),
        **(more or {}),
    }
    beside = run_dir / (STATUS + ".unfinished")
    beside.write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")
    beside.replace(run_dir / STATUS)


def read_status(run_dir: Path) -> dict[str, Any]:
    """``status.json``; empty where there is none or it cannot be read."""
    try:
        status = json.loads((run_dir / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def outcome_now(status: dict[str, Any]) -> Outcome:
    """How a run stands: one that says it is running but whose process is gone was interrupted."""
    stated = status.get("outcome")
    if stated in ("finished", "interrupted", "failed"):
        return stated
    return "running" if stated == "running" and _lives(status) else "interrupted"


def _lives(status: dict[str, Any]) -> bool:
    pid = status.get("pid")
    if status.get("host") == socket.gethostname() and isinstance(pid, int):
        start = status.get("process_started")
        if start is not None:
            return _process_start(pid) == start
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        except OSError:
            return False
        return True
    try:
        updated = datetime.fromisoformat(str(status.get("updated")))
    except ValueError:
        return False
    return (datetime.now(UTC) - updated).total_seconds() < STALE_SECONDS


def _process_start(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: tells a process from a later one with the same number. Linux only."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
