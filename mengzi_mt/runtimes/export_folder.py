"""Export folders: a T5 in another form than a checkpoint's, recognised by ``export.json``. What is in them:

export.json            format, runtime and its version, precision, source, what was compared with float32
config.json, generation_config.json, tokenizer files, mengzi_mt.json, README.md    as of a checkpoint
torch-int8/            the runtime's own files, in a folder of its name
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError, nearest

EXPORT_FILE = "export.json"
FORMAT = "mengzi-mt/export/1"
RUNTIMES = {"torch-int8": 1, "ctranslate2": 1, "onnx": 1}
"""Each runtime's version: of the files in its folder, as this package writes and reads them."""
FLOATS = ("float32", "bfloat16")
PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch-int8": ("int8",),
    "ctranslate2": ("float32", "bfloat16", "int8", "int8_float32"),
    "onnx": ("float32", "int8"),
}


@dataclass(frozen=True)
class Export:
    """What ``export.json`` says.

    Attributes:
        runtime: one of :data:`RUNTIMES`.
        precision: one of the runtime's :data:`PRECISIONS`.
        parameters: of the model it was made of.
        source: ``name`` of the checkpoint and ``hash`` of its weights.
        files: size in bytes and SHA-256 of each of the runtime's files, by its path in the folder.
        versions: of the libraries that wrote it.
        runtime_version: as in :data:`RUNTIMES`.
        check: what was compared with float32, and what came out.
    """

    runtime: str
    precision: str
    parameters: int
    source: Mapping[str, Any]
    files: Mapping[str, Any]
    versions: Mapping[str, str]
    runtime_version: int = 1
    check: Mapping[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def hash(self) -> str:
        """16 hex digits that stand for the runtime's files."""
        told = json.dumps([self.runtime, self.precision, sorted((name, one["sha256"]) for name, one in self.files.items())])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def describe_files(folder: Path, runtime: str) -> dict[str, dict[str, Any]]:
    """Size and hash of the runtime's files."""
    found = {}
    for path in sorted((folder / runtime).rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": digest}
    return found


def write_export(folder: Path, export: Export) -> None:
    """Write ``export.json``."""
    (folder / EXPORT_FILE).write_text(json.dumps(asdict(export), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def is_export(place: str | Path) -> bool:
    """Whether an export folder is there."""
    return (Path(place) / EXPORT_FILE).is_file()


def read_export(folder: Path) -> Export:
    """What an export folder is, its files checked to be there in full.

    Raises:
        InputError: a damaged ``export.json``, a format, runtime or precision that this version does not know, or a file that
            is missing or has another size.
    """
    path = folder / EXPORT_FILE
    where = str(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The export cannot be read: {error}", where=where, fix="export the checkpoint again") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise InputError(
            f"This version of mengzi-mt reads exports of format {FORMAT!r}, not {found!r}",
            where=where, fix="update mengzi-mt, or export the checkpoint again with this version",
        )  # fmt: skip
    if told.get("runtime") not in RUNTIMES:
        raise InputError(f"Unknown runtime {told.get('runtime')!r}", where=where, fix=nearest(str(told.get("runtime")), RUNTIMES))
    newest = RUNTIMES[told["runtime"]]
    if told.get("runtime_version") != newest:
        raise InputError(
            f"The files are of version {told.get('runtime_version')} of the runtime {told['runtime']}; here is version {newest}",
            where=where, fix="update mengzi-mt, or export the checkpoint again with this version",
        )  # fmt: skip
    try:
        export = Export(**told)
    except TypeError as error:
        raise InputError(f"The export is damaged: {error}", where=where, fix="export the checkpoint again") from error
    if export.precision not in PRECISIONS[export.runtime]:
        raise InputError(
            f"Unknown precision {export.precision!r}", where=where, fix=nearest(export.precision, PRECISIONS[export.runtime])
        )
    for name, one in export.files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != one["bytes"]:
            problem = "is missing" if size is None else f"has {size:,} bytes instead of {one['bytes']:,}"
            raise InputError(f"The export is incomplete: {name} {problem}", where=str(folder), fix="copy or export it again")
    return export
