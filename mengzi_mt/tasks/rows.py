"""Rows of a task's split, from real files, from the bundled sample or from the hub, with counts of what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError

from mengzi_mt.conditions import compile_condition
from mengzi_mt.errors import InputError, MengziError, nearest
from mengzi_mt.resources import registry_entry
from mengzi_mt.tasks.data_map import DataMap
from mengzi_mt.tasks.fields import BadRecord, convert_record
from mengzi_mt.tasks.readers import Located, read_records
from mengzi_mt.tasks.task import ReaderSpec, Task
from mengzi_mt.yaml_io import read_text

VALIDATION_SHARE = 0.05
SAMPLE_VALIDATION_SHARE = 1 / 3
SAMPLE_FILE = "sample.jsonl"


@dataclass(frozen=True, slots=True)
class Row:
    """One usable example: a stable id (``file:record``) and its converted values."""

    row_id: str
    values: dict[str, Any]


@dataclass(slots=True)
class ReadCounts:
    """What a read met: records read, distinct groups (``group_by``) among them, records skipped by ``skip_if``, bad records
    skipped, answer and entity offsets repaired."""

    read: int = 0
    groups: int = 0
    skipped: int = 0
    bad: int = 0
    repaired: int = 0
    bad_places: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataSource:
    """Where rows come from: real files under ``root`` (with an optional data map), the bundled sample, or the hub."""

    kind: Literal["files", "sample", "hub"]
    root: Path | None = None
    data_map: DataMap | None = None
    tasks_dir: Path | None = None

    def describe(self) -> str:
        """One word for reports: results made from the sample must say so."""
        return self.kind


@dataclass(frozen=True)
class Rows:
    """The rows of one split, the counts, and how the split came about."""

    task: Task
    split: str
    rows: list[Row]
    counts: ReadCounts
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def load_rows(task: Task, split: str, source: DataSource, limit: int | None = None) -> Rows:
    """Every usable row of one split.

    Where a task has no validation files at hand, ``validation`` (and the rest as ``train``) is cut from the training
    files by a hash over ``group_by``, so rows that share a passage or a premise stay on one side.

    Raises:
        InputError: a missing folder or file, an unknown split, or a bad record (file, line, field).
    """
    if source.kind == "sample":
        return _load_sample(task, split, source, limit)
    if source.kind == "hub":
        from mengzi_mt.tasks.hub import hub_records

        return _collect(task, split, [hub_records(task, split)], {"source": "hub", "split": split}, limit=limit)
    return _load_files(task, split, source, limit)


def available_splits(task: Task, source: DataSource) -> list[str]:
    """Splits that can be read, in the task's order; a validation split that would be cut by hash is among them."""
    if source.kind == "sample":
        return ["train", "validation"] if task.role == "train" else ["validation"]
    if source.kind == "hub":
        return [] if task.source.hub == "unknown" else list(task.source.hub.splits)
    mapped = source.data_map.splits(task.name) if source.data_map else None
    names = mapped if mapped is not None else {name: list(files) for name, files in task.source.splits.items()}
    folder = _folder(task, source)
    present = [name for name, files in names.items() if _present(folder, list(files))]
    if task.role == "train" and "train" in present and "validation" not in present:
        present.insert(present.index("train") + 1, "validation")
    return present


def is_validation(task: Task, values: dict[str, Any], row_id: str, share: float) -> bool:
    """Whether a row falls to the validation side of a cut: a hash of its group, never its position."""
    keys = [str(values.get(key, "")) for key in task.group_by] or [row_id]
    digest = hashlib.sha256("\x1f".join([task.name, *keys]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def _load_sample(task: Task, split: str, source: DataSource, limit: int | None) -> Rows:
    path = _sample_path(task, source.tasks_dir)
    located = _with_file(path, read_records(path, ReaderSpec(format="jsonl")))
    whole = _collect(task, split, [located], {"source": "sample", "files": [SAMPLE_FILE]})
    if task.role == "zero_shot" or split not in ("train", "validation"):
        return _limited(whole, limit)
    return _limited(_cut(whole, split, SAMPLE_VALIDATION_SHARE), limit)


def _sample_path(task: Task, tasks_dir: Path | None) -> Path:
    folder = tasks_dir / task.name if tasks_dir else registry_entry("tasks", task.name)
    path = folder / SAMPLE_FILE
    if not path.is_file():
        raise InputError(f"The task {task.name!r} has no sample", where=str(path), fix="write one, or use real files (--data-dir)")
    return path


def has_sample(task: Task) -> bool:
    """Whether the task has a bundled sample."""
    return (registry_entry("tasks", task.name) / SAMPLE_FILE).is_file()


def _load_files(task: Task, split: str, source: DataSource, limit: int | None) -> Rows:
    folder = _folder(task, source)
    mapped = source.data_map.splits(task.name) if source.data_map else None
    names: dict[str, list[str]] = mapped if mapped is not None else {k: list(v) for k, v in task.source.splits.items()}
    cut = split in ("train", "validation") and task.role == "train" and not _present(folder, names.get("validation"))
    file_split = "train" if cut else split
    files = names.get(file_split)
    if not files:
        raise InputError(
            f"The task {task.name!r} has no split {split!r}", where=str(folder), fix=nearest(split, [*names, "validation"])
        )
    missing = [name for name in files if not matching_files(folder, name)]
    if missing:
        raise InputError(
            f"Split {split!r} of the task {task.name!r} needs {', '.join(missing)}, which is not there",
            where=str(folder),
            fix=f"put the official file there, or name what stands in for it in a data map (--data-map); "
            f"splits at hand: {', '.join(available_splits(task, source)) or 'none'}",
        )
    provenance: dict[str, Any] = {"source": "files", "split": split, "files": files}
    if source.data_map and mapped is not None:
        official = source.data_map.official_split(task.name, file_split)
        provenance.update(data_map=source.data_map.name, official_split=official)
    names_read = [name for pattern in files for name in matching_files(folder, pattern)]
    parts = [_with_file(folder / name, read_records(folder / name, task.reader, name), name) for name in names_read]
    rows = _collect(task, split, parts, provenance, limit=None if cut else limit)
    return _limited(_cut(rows, split, VALIDATION_SHARE), limit) if cut else rows


def _present(folder: Path, files: list[str] | None) -> bool:
    return bool(files) and all(matching_files(folder, name) for name in files or ())


def matching_files(folder: Path, name: str) -> list[str]:
    """The files that a name stands for: itself, or what a pattern with ``*`` matches, sorted."""
    if "*" not in name:
        return [name] if (folder / name).is_file() else []
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(name) if path.is_file())


def _folder(task: Task, source: DataSource) -> Path:
    if source.root is None:
        raise InputError(
            "No data folder was given", where=f"task {task.name!r}", fix="set --data-dir or MENGZI_MT_DATA, or use --data sample"
        )
    if not source.root.is_dir():
        raise InputError("The data folder does not exist", where=str(source.root), fix="check --data-dir or MENGZI_MT_DATA")
    folder = source.root / task.source.path
    if not folder.is_dir():
        raise InputError(
            f"The data folder has nothing for the task {task.name!r}",
            where=str(folder),
            fix="put its official files there: "
            + ", ".join(sorted({name for files in task.source.splits.values() for name in files})[:6]),
        )
    return folder


def _cut(rows: Rows, split: str, share: float) -> Rows:
    wanted = split == "validation"
    kept = [row for row in rows.rows if is_validation(rows.task, row.values, row.row_id, share) == wanted]
    provenance = {
        **rows.provenance,
        "cut": f"{split} side of a hash cut with {share:.0%} for validation, grouped by "
        + (", ".join(rows.task.group_by) or "row"),
    }
    return Rows(rows.task, split, kept, rows.counts, provenance)


def _limited(rows: Rows, limit: int | None) -> Rows:
    return rows if limit is None else Rows(rows.task, rows.split, rows.rows[:limit], rows.counts, rows.provenance)


def _with_file(path: Path, records: Iterable[Located], name: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Adds to each record its row id (``file:number``) and its full place for errors."""
    for number, (place, record) in enumerate(records, start=1):
        yield f"{name or path.name}:{number}", f"{path}, {place}", record


def _collect(
    task: Task,
    split: str,
    parts: Iterable[Iterable[tuple[str, str, dict[str, Any]]]],
    provenance: dict[str, Any],
    limit: int | None = None,
) -> Rows:
    counts = ReadCounts()
    rows: list[Row] = []
    skip = _compiled_skip(task)
    groups: set[tuple[str, ...]] = set()
    for part in parts:
        for row_id, place, record in part:
            if limit is not None and len(rows) >= limit:
                return Rows(task, split, rows, counts, provenance)
            counts.read += 1
            try:
                converted = convert_record(task, record)
            except BadRecord as error:
                if task.on_bad_record == "error":
                    raise InputError(
                        f"A record of the task {task.name!r} does not read: {error}", where=place, fix=error.fix
                    ) from error
                counts.bad += 1
                counts.bad_places.append(place)
                continue
            counts.repaired += converted.repaired
            groups.add(tuple(str(converted.values.get(key, "")) for key in task.group_by) or (row_id,))
            counts.groups = len(groups)
            if skip and _skips(task, skip, converted.values, place):
                counts.skipped += 1
                continue
            rows.append(Row(row_id, converted.values))
    return Rows(task, split, rows, counts, provenance)


def _compiled_skip(task: Task) -> Callable[..., Any] | None:
    if not task.skip_if:
        return None
    try:
        return compile_condition(task.skip_if)
    except TemplateError as error:
        raise InputError(
            f"skip_if of the task {task.name!r} does not parse: {error}", where=f"tasks/{task.name}/task.yaml, key skip_if",
            fix="write a Jinja expression over the task's fields",
        ) from error  # fmt: skip


def _skips(task: Task, skip: Any, values: dict[str, Any], place: str) -> bool:
    try:
        return bool(skip(values))
    except MengziError:
        raise
    except Exception as error:
        raise InputError(
            f"skip_if of the task {task.name!r} fails on this row: {error}", where=place, fix=f"correct `skip_if: {task.skip_if}`"
        ) from error


def sample_hash(task: Task, tasks_dir: Path | None = None) -> str:
    """SHA-256 (first 16 hex digits) of the bundled sample, for manifests."""
    path = _sample_path(task, tasks_dir)
    return hashlib.sha256(read_text(path).encode()).hexdigest()[:16]
