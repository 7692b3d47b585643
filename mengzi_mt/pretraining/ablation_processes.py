"""Processes of an ablation side by side: started, watched, asked to stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mengzi_mt
from mengzi_mt.errors import InputError, MengziError, RunError
from mengzi_mt.training.interrupts import Interrupts

_POLL, _SHOW = 0.2, 30.0
"""Seconds between looks at the processes, and between lines of progress."""


@dataclass(frozen=True)
class Job:
    """What one process does, and where its words go."""

    name: str
    argument: Mapping[str, Any]
    log: Path


def run_side_by_side(
    jobs: Sequence[Job], processes: int, show: Callable[[list[str], list[str]], None], module: str = f"{__package__}.ablation_job"
) -> None:
    """Run jobs in their order, so many at a time, each in a fresh interpreter.

    A first SIGINT or SIGTERM lets the processes save and end, and then ends this one as the signal would have; a second one ends
    them at once. So does the end of this process, however it comes: their standard input closes with it.

    Args:
        jobs: to do.
        processes: at a time. Of several each computes with one thread.
        show: called with the names of the jobs under way and of those done, when one is done and every half minute.
        module: what is run, with a job's argument as JSON.

    Raises:
        InputError: a process refused its input.
        RunError: one failed otherwise; the others are stopped first.
    """
    waiting, running, done = list(jobs), dict[str, tuple[Job, subprocess.Popen[bytes]]](), list[str]()
    shown = time.monotonic()
    with Interrupts() as interrupts:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    job = waiting.pop(0)
                    running[job.name] = (job, _start(job, module, processes))
                time.sleep(_POLL)
                if interrupts.asked is not None:
                    _stop(running)
                    interrupts.stop()
                ended = [name for name, (_, process) in running.items() if process.poll() is not None]
                for name in ended:
                    job, process = running.pop(name)
                    if process.returncode:
                        _stop(running)
                        raise _failure(job, process.returncode)
                    done.append(name)
                if ended or time.monotonic() - shown > _SHOW:
                    shown = time.monotonic()
                    show(list(running), done)
        finally:
            for _, process in running.values():
                process.kill()
                process.wait()


def _start(job: Job, module: str, processes: int) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches it only through this process."""
    package = str(Path(mengzi_mt.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
    if processes > 1:
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(job.argument)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip


def _stop(running: dict[str, tuple[Job, subprocess.Popen[bytes]]]) -> None:
    """Ask all to save and end, and wait for them."""
    for _, process in running.values():
        if process.stdin is not None:
            process.stdin.close()
    for _, process in running.values():
        process.wait()
    running.clear()


def _failure(job: Job, status: int) -> MengziError:
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.is_file() else []
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing").removeprefix("error: ")
    kind = InputError if status == InputError.exit_code else RunError
    cause = f"ended with signal {-status}: {said}" if status < 0 else f"failed: {said}"
    return kind(f"The process {job.name!r} {cause}", where=str(job.log), fix="mend this and give the same command again")
