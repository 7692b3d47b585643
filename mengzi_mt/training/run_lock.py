"""One run at a time writes to a run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mengzi_mt.errors import InputError
from mengzi_mt.training.devices import Devices

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is checked
    fcntl = None  # type: ignore[assignment]


@contextmanager
def sole_writer(folder: Path, devices: Devices) -> Iterator[None]:
    """Hold the folder while the block runs. The lock ends with the process, however it ends; no file is left behind.

    Args:
        folder: made if it is not there.
        devices: of the run; the first process holds the folder, and all fail together.

    Raises:
        InputError: another run holds it.
    """
    descriptor = _locked(folder) if devices.main else None
    try:
        if devices.from_main(descriptor == -1):
            raise InputError(
                "Another process is writing to the run folder",
                where=str(folder),
                fix="wait for it or end it, then give the same command; or set another `output`",
            )
        yield
    finally:
        if descriptor is not None and descriptor >= 0:
            os.close(descriptor)


def _locked(folder: Path) -> int | None:
    """An open descriptor of the folder that holds its lock; -1 where another holds it; None where there are no locks."""
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor
