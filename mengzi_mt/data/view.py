"""Filtered views: which rows of which tasks a training run leaves out, and of which files that was decided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.resources import registry_entry, resource_dir
from mengzi_mt.tasks.registry import task_names
from mengzi_mt.tasks.rows import DataSource, Rows, load_rows
from mengzi_mt.tasks.task import Task
from mengzi_mt.yaml_io import load_mapping

VIEW_SCHEMA = "mengzi-mt/view/1"
_KEYS = ("schema", "created", "settings", "evaluation", "tasks")
_TASK_KEYS = ("version", "files", "exclude")


@dataclass(frozen=True)
class TaskView:
    """What a view says of one task.

    Attributes:
        exclude: ids of the rows to be left out.
        files: file name to hash, every file whose rows were looked at; None in a view written by hand.
        version: the task's version then.
    """

    exclude: frozenset[str]
    files: dict[str, str] | None = None
    version: int | None = None


@dataclass(frozen=True)
class View:
    """Per task, the rows to be left out; ``sha256`` (first 16 hex digits) is that of the view's file."""

    path: Path
    sha256: str
    tasks: dict[str, TaskView]


def load_view(path: Path) -> View:
    """Read one view; a bare name is looked for among the shipped ``recipes/views/``.

    Raises:
        InputError: a missing file, an unknown key or task, or something that is no row id, naming file and key.
    """
    shipped = resource_dir("recipes") / "views" / f"{path.name.removesuffix('.yaml')}.yaml"
    if not path.is_file() and path.parent == Path() and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise InputError(
            "The view does not exist", where=f"{path} (recipe key data.exclude)",
            fix="write it with `mengzi-mt data overlap --write-view`, or take the key out",
        )  # fmt: skip
    raw = load_mapping(path)
    for key in set(raw) - set(_KEYS):
        raise InputError(f"Unknown key {key!r}", where=str(path), fix=nearest(str(key), _KEYS))
    if raw.get("schema") != VIEW_SCHEMA:
        raise InputError(
            f"The view has the schema {raw.get('schema')!r}, this version reads {VIEW_SCHEMA!r}", where=f"{path}, key schema",
            fix=f"write `schema: {VIEW_SCHEMA}`, or make the view again",
        )  # fmt: skip
    tasks = raw.get("tasks")
    if not isinstance(tasks, dict):
        raise InputError("A view needs the key `tasks`", where=str(path), fix="write `tasks: {name: {exclude: [file:record, …]}}`")
    known = task_names()
    for name in tasks:
        if name not in known:
            raise InputError(f"There is no task {name!r}", where=f"{path}, key tasks.{name}", fix=nearest(str(name), known))
    return View(path, sha256(path), {name: _task_view(path, f"tasks.{name}", value) for name, value in tasks.items()})


def _task_view(path: Path, key: str, raw: Any) -> TaskView:
    if not isinstance(raw, dict) or not isinstance(raw.get("exclude"), list):
        raise InputError("A task needs the key `exclude`", where=f"{path}, key {key}", fix="write `exclude: [file:record, …]`")
    for unknown in set(raw) - set(_TASK_KEYS):
        raise InputError(f"Unknown key {unknown!r}", where=f"{path}, key {key}", fix=nearest(str(unknown), _TASK_KEYS))
    for row_id in raw["exclude"]:
        if not isinstance(row_id, str) or not row_id.rpartition(":")[2].isdecimal():
            raise InputError(
                f"{row_id!r} is no row id", where=f"{path}, key {key}.exclude", fix="write file:record, e.g. train.json:12"
            )
    files = raw.get("files")
    if files is not None and not isinstance(files, dict):
        raise InputError("`files` must be a mapping", where=f"{path}, key {key}.files", fix="write `file: hash` lines under it")
    return TaskView(frozenset(raw["exclude"]), files, raw.get("version"))


def write_view(path: Path, tasks: Mapping[str, TaskView], about: Mapping[str, Any]) -> None:
    """Write a view; ``about`` gives ``created``, ``settings`` and ``evaluation``."""
    listed = {
        name: {"version": view.version, "files": view.files, "exclude": sorted(view.exclude, key=file_and_record)}
        for name, view in tasks.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"schema": VIEW_SCHEMA, **about, "tasks": listed}, allow_unicode=True, sort_keys=False, width=1000)
    path.write_text(text, encoding="utf-8")


class RowFilter:
    """Loads rows without those that a view lists, and keeps account of it. Without a view every row passes."""

    def __init__(self, view: View | None, source: DataSource) -> None:
        self.view = view
        self.source = source
        self._left_out: dict[str, dict[str, set[str]]] = {}
        self._files_read: dict[str, set[str]] = {}
        self._cut: set[str] = set()

    def load_rows(self, task: Task, split: str, limit: int | None = None) -> Rows:
        """As :func:`mengzi_mt.tasks.rows.load_rows`; ``limit`` counts the rows that stay.

        Raises:
            InputError: as there; and where the view was made from other files, or another version of the task.
        """
        listed = self.view.tasks.get(task.name) if self.view else None
        if self.view is None or listed is None:
            return load_rows(task, split, self.source, limit)
        rows = load_rows(task, split, self.source)
        files = files_of(row.row_id for row in rows.rows)
        _check_made_from(self.view, listed, task, file_hashes(task, self.source, files))
        kept = [row for row in rows.rows if row.row_id not in listed.exclude]
        self._left_out.setdefault(task.name, {})[split] = {row.row_id for row in rows.rows} & listed.exclude
        self._files_read.setdefault(task.name, set()).update(files)
        if "cut" in rows.provenance:
            self._cut.add(task.name)
        return Rows(task, split, kept[:limit], rows.counts, rows.provenance)

    def account(self, task: Task) -> dict[str, Any] | None:
        """What a manifest says of the view and one task, after its splits were loaded; None without a view.

        ``in_other_files`` counts listed rows of files that this run does not read (a test split, say), ``not_found`` those
        of files that it does read, and that are not there.
        """
        if self.view is None:
            return None
        account: dict[str, Any] = {"view": self.view.path.name, "view_sha256": self.view.sha256}
        listed = self.view.tasks.get(task.name)
        if listed is None:
            return {**account, "listed": None}
        if task.name in self._cut and "validation" not in self._left_out[task.name]:
            self.load_rows(task, "validation")
        left_out = self._left_out.get(task.name, {})
        files = self._files_read.get(task.name, set())
        unmet = sorted(listed.exclude.difference(*left_out.values()), key=file_and_record)
        lost = [row_id for row_id in unmet if file_and_record(row_id)[0] in files]
        return {
            **account,
            "listed": len(listed.exclude),
            "left_out": {split: len(ids) for split, ids in left_out.items()},
            "in_other_files": len(unmet) - len(lost),
            "not_found": len(lost),
            "first_not_found": lost[:5],
        }

    def warning(self, task: Task) -> str | None:
        """What a user must know of the view and one task, or None where all is as it should be."""
        account = self.account(task)
        if account is None or self.view is None:
            return None
        if account["listed"] is None:
            return f"the view {self.view.path} says nothing of the task {task.name!r}; all its rows are used, none was compared"
        if account["not_found"]:
            first = ", ".join(account["first_not_found"])
            return (
                f"the view {self.view.path} lists {account['not_found']} rows of {task.name!r} that are not there (first: {first})"
            )
        return None


def file_and_record(row_id: str) -> tuple[str, int]:
    """The two parts of a row id, for grouping and for sorting in the files' order."""
    name, _, record = row_id.rpartition(":")
    return name, int(record)


def files_of(row_ids: Iterable[str]) -> list[str]:
    """The files that rows come from, sorted."""
    return sorted({row_id.rpartition(":")[0] for row_id in row_ids})


def sha256(*paths: Path) -> str:
    """SHA-256 (first 16 hex digits) of the files' bytes, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def file_hashes(task: Task, source: DataSource, names: Iterable[str]) -> dict[str, str] | None:
    """File name to hash, a file's siblings (``format: parallel``) included; None for the hub, which has no files here."""
    if source.kind == "hub":
        return None
    if source.kind == "sample" or source.root is None:
        folder = source.tasks_dir / task.name if source.tasks_dir else registry_entry("tasks", task.name)
        return {name: sha256(folder / name) for name in names}
    folder = source.root / task.source.path
    hashes = {}
    for name in names:
        siblings = [(folder / name).parent / sibling for sibling in task.reader.for_file(name).siblings]
        hashes[name] = sha256(folder / name, *siblings)
    return hashes


def _check_made_from(view: View, listed: TaskView, task: Task, hashes: dict[str, str] | None) -> None:
    """Row ids count records: in another file, or read in another way, they name other rows."""
    fix = "compare again with `mengzi-mt data overlap --write-view`, on the files that the run reads"
    where = f"{view.path}, key tasks.{task.name}"
    if listed.version not in (None, task.version):
        raise InputError(
            f"The view was made for version {listed.version} of the task {task.name!r}, which is now at version {task.version}",
            where=where, fix=fix,
        )  # fmt: skip
    if listed.files is None or hashes is None:
        return
    for name, found in hashes.items():
        if name not in listed.files:
            raise InputError(f"The view was made without looking at {name}", where=f"{where}.files", fix=fix)
        if listed.files[name] != found:
            raise InputError(f"The view was made from another {name} than the one at hand", where=f"{where}.files", fix=fix)
