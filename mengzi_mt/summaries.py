"""Summaries of registry files, kept between runs so that listings need not parse them all.

A summary is keyed by the file's path, size and modification time; an edited file is read again, and a cache that cannot be
read or written costs only time.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mengzi_mt import __version__

Summary = Any
"""Anything that JSON can hold."""


def cache_folder() -> Path:
    """``MENGZI_MT_CACHE``, or ``mengzi-mt`` under the user's cache folder."""
    own = os.environ.get("MENGZI_MT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mengzi-mt"


def summaries(kind: str, files: Sequence[Path], read: Callable[[Path], Summary]) -> list[Summary]:
    """The summary of each file, in order; ``read`` is called for those that are new or changed.

    Raises:
        Whatever ``read`` raises for a file that cannot be summarised.
    """
    path = cache_folder() / f"{kind}-{__version__}.json"
    known = _load(path)
    wanted: dict[str, list[Any]] = {}
    for file in files:
        status = file.stat()
        stamp = [status.st_mtime_ns, status.st_size]
        entry = known.get(str(file))
        wanted[str(file)] = entry if entry is not None and entry[0] == stamp else [stamp, read(file)]
    if any(known.get(name) != entry for name, entry in wanted.items()):
        _save(path, {**known, **wanted})
    return [wanted[str(file)][1] for file in files]


def _load(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = value.items() if isinstance(value, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 2}


def _save(path: Path, value: dict[str, Any]) -> None:
    """Written beside and renamed, so that two processes never read half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)
        Path(name).replace(path)
    except OSError:
        pass  # a listing must not fail for its cache
