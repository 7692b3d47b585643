"""Checkpoints turned into a runtime's form when that is asked for, once, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from mengzi_mt.compression.export import ExportSettings, Target, export, precisions
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.provenance import weights_hash
from mengzi_mt.runtimes.export_folder import RUNTIMES, is_export, read_export
from mengzi_mt.summaries import cache_folder

DEFAULT_PRECISION = "int8"
"""Where no type was asked for: what one takes another runtime for."""
_SMALL_FILES = ("*.json", "*.model", "*.txt")


def converted(place: str, to: Target, precision: str | None) -> str:
    """The folder of a checkpoint in a runtime's form; made if it is not there yet.

    It lies in ``exports/`` of the cache folder (``MENGZI_MT_CACHE``), by the hash of the checkpoint's files, so one that was
    trained on, or has another tokenizer, is converted anew. float32 conversions are compared with the checkpoint before they are
    put there (:func:`mengzi_mt.compression.export.export`).

    Args:
        place: a checkpoint's folder or hub name.
        to: the runtime.
        precision: of the runtime; int8 by default.

    Raises:
        InputError: a precision that the runtime does not have, a library that is missing, a model that it cannot take.
        RunError: a float32 conversion that answers otherwise.
    """
    wanted = precision or DEFAULT_PRECISION
    if wanted not in precisions(to):
        raise InputError(f"{to} has no type {wanted!r}", where="dtype", fix=f"use {', '.join(precisions(to))}")
    checkpoint = local_folder(place)
    runtime = "torch-int8" if to == "torch" else to
    name = f"{checkpoint.name}-{_identity(checkpoint)}-{runtime}-{wanted}-v{RUNTIMES[runtime]}"
    folder = cache_folder() / "exports" / name
    if not _whole(folder):
        print(f"{place}: converting to {to} {wanted}, once; kept in {folder}", file=sys.stderr, flush=True)
        export(checkpoint, folder, ExportSettings(to=to, precision=wanted))
    return str(folder)


def local_folder(place: str) -> Path:
    """Where the files of a folder or of a hub name are on this machine; the latter are fetched if need be.

    Raises:
        InputError: neither a folder, nor files of the hub.
    """
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(place, allow_patterns=[*_SMALL_FILES, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):  # many older T5s have no others than these
            folder = Path(snapshot_download(place, allow_patterns=[*_SMALL_FILES, "*.bin"]))
        return folder
    except Exception as error:  # whatever the network, the hub or its cache raise
        raise InputError(
            f"Nothing to convert: {error}", where=place, fix="give a checkpoint's folder, or a hub name that can be reached"
        ) from error


def _whole(folder: Path) -> bool:
    """Whether an earlier conversion is there and reads."""
    try:
        return is_export(folder) and bool(read_export(folder))
    except InputError:
        return False


def _identity(checkpoint: Path) -> str:
    """A hash of configuration, tokenizer and weights; weights in several files, or not in safetensors, count by size and time."""
    small = sorted(path for pattern in _SMALL_FILES for path in checkpoint.glob(pattern))
    told: list[object] = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in small]
    weights = weights_hash(checkpoint)
    large = sorted(path for pattern in ("*.safetensors", "*.bin") for path in checkpoint.glob(pattern))
    told += [weights] if weights else [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in large]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
