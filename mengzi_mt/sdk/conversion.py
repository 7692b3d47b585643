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

SMALLEST = "int8"
"""What a runtime takes where no type was asked for: what one takes another runtime for."""


def converted(place: str, to: Target, precision: str | None) -> str:
    """The folder of a checkpoint in a runtime's form; made if it is not there yet.

    It lies in ``exports/`` of the cache folder (``MENGZI_MT_CACHE``), by the hash of the weights, so a checkpoint that was trained
    on is converted anew. float32 conversions are compared with the checkpoint before they are put there
    (:func:`mengzi_mt.compression.export.export`).

    Args:
        place: a checkpoint's folder or hub name.
        to: the runtime.
        precision: of the runtime; int8 by default.

    Raises:
        InputError: a precision that the runtime does not have, a library that is missing, a model that it cannot take.
        RunError: a float32 conversion that answers otherwise.
    """
    wanted = precision or SMALLEST
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
        return Path(snapshot_download(place, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
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
    """The hash of the weights; of names, sizes and times of weights in several files."""
    known = weights_hash(checkpoint)
    if known:
        return known
    files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in checkpoint.glob("*.safetensors"))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
