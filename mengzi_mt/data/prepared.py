"""Prepared examples of a mixture's tasks: which folder holds them, what decides their content, and how they are read.

Every task has a folder ``<task>-<key>`` under one root. The key is a hash of all that decides the examples, so a change of
one template makes a new folder for that task and leaves the others as they are. ``manifest.json`` is written last: a
folder without it is unfinished, and its shards are used when preparation goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mengzi_mt import __version__
from mengzi_mt.data.mixture import Pool
from mengzi_mt.data.shards import Shard, ShardInfo, State
from mengzi_mt.data.tokens import Limits
from mengzi_mt.data.view import file_hashes, files_of
from mengzi_mt.errors import InputError, RunError
from mengzi_mt.summaries import cache_folder
from mengzi_mt.tasks.rows import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = "mengzi-mt/prepared/1"
MANIFEST = "manifest.json"
SHARD_EXAMPLES = 16_384
"""Examples of a full shard: half a second of one core's work, some three megabytes."""


def default_root() -> Path:
    """Where prepared examples lie unless the recipe's ``data.prepared_dir`` says otherwise."""
    return cache_folder() / "prepared"


@dataclass(frozen=True)
class TaskPlan:
    """One task's prepared examples, present or to be made.

    Attributes:
        pool: its rows and templates.
        folder: where they lie.
        identity: all that decides them, from which the folder's key is made.
        limits: of an example, in tokens.
        dtype: of ids.
    """

    pool: Pool
    folder: Path
    identity: dict[str, Any]
    limits: Limits
    dtype: str

    @property
    def shard_rows(self) -> int:
        """Rows of a full shard."""
        return max(1, SHARD_EXAMPLES // len(self.pool.templates))

    def shards(self) -> list[tuple[Path, range]]:
        """File and rows of every shard."""
        starts = range(0, len(self.pool.rows), self.shard_rows)
        return [
            (self.folder / f"shard-{number:05d}.arrow", range(start, min(start + self.shard_rows, len(self.pool.rows))))
            for number, start in enumerate(starts)
        ]


def plan_tasks(
    pools: Iterable[Pool], source: DataSource, tokenizer: PreTrainedTokenizerBase, limits: Limits, root: Path
) -> list[TaskPlan]:
    """Where the examples of each pool lie, or are to be made, under ``root``."""
    tokens = tokenizer_hash(tokenizer)
    plans = []
    for pool in pools:
        identity = _identity(pool, source, tokens, limits)
        key = _sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False))
        dtype = np.min_scalar_type(max(1, len(tokenizer) - 1)).name
        plans.append(TaskPlan(pool, root / f"{pool.task.name}-{key}", identity, limits, dtype))
    return plans


def _identity(pool: Pool, source: DataSource, tokenizer: str, limits: Limits) -> dict[str, Any]:
    """All that decides a task's examples.

    The ids of the rows that are used stand for ``rows_per_task``, for the view of rows to leave out and for a validation
    cut: a view that changes for another task, or a limit that does not bite, redoes nothing here.
    """
    files = file_hashes(pool.task, source, files_of(row.row_id for row in pool.rows))
    return {
        "format": FORMAT,
        "version": __version__,
        "task": pool.task.model_dump(mode="json"),
        "templates": [
            [item.id, item.name, item.jinja, item.answer_choices, sorted(item.shrink.items()), item.skip_if]
            for item in pool.templates
        ],
        "files": files or _sha256(*(repr(row.values) for row in pool.rows)),
        "rows": _sha256(*(row.row_id for row in pool.rows)),
        "tokenizer": tokenizer,
        "limits": [limits.inputs, limits.targets],
    }


_TOKENIZER_FILES = ("spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (first 16 hex digits) of the tokenizer's files, or of its serialised form where it has none here."""
    folder = Path(str(tokenizer.name_or_path))
    present = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        return _sha256(tokenizer.backend_tokenizer.to_str())
    digest = hashlib.sha256()
    for path in present:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _sha256(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\x1f")
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TaskManifest:
    """What a finished folder holds."""

    task: str
    rows: int
    templates: tuple[str, ...]
    dtype: str
    shards: tuple[ShardInfo, ...]
    identity: dict[str, Any]

    @cached_property
    def totals(self) -> dict[str, int]:
        """Sums over the shards: examples, absent, skipped, tokens, bytes."""
        return {
            key: sum(getattr(shard, key) for shard in self.shards) for key in ("examples", "absent", "skipped", "tokens", "bytes")
        }


def read_manifest(plan: TaskPlan) -> TaskManifest | None:
    """The manifest of a plan's folder, or None where it is not finished or a shard is gone or of another size."""
    try:
        raw = json.loads((plan.folder / MANIFEST).read_text(encoding="utf-8"))
        shards = tuple(ShardInfo(**shard) for shard in raw.pop("shards"))
        manifest = TaskManifest(**{**raw, "templates": tuple(raw["templates"])}, shards=shards)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    wanted = [(path, rows.start, len(rows)) for path, rows in plan.shards()]
    if [(plan.folder / shard.name, shard.first_row, shard.rows) for shard in shards] != wanted:
        return None
    for shard in shards:
        path = plan.folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            return None
    return manifest


def write_manifest(plan: TaskPlan, shards: Sequence[ShardInfo]) -> TaskManifest:
    """Declare a folder finished."""
    ordered = tuple(sorted(shards, key=lambda shard: shard.first_row))
    names = tuple(template.name for template in plan.pool.templates)
    manifest = TaskManifest(plan.pool.task.name, len(plan.pool.rows), names, plan.dtype, ordered, plan.identity)
    beside = plan.folder / f"{MANIFEST}.unfinished"
    beside.write_text(json.dumps(asdict(manifest), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    beside.replace(plan.folder / MANIFEST)
    return manifest


class PreparedTask:
    """One task's prepared examples, read through memory maps that are opened when first used."""

    def __init__(self, plan: TaskPlan, manifest: TaskManifest) -> None:
        self.plan = plan
        self.manifest = manifest
        self._templates = len(manifest.templates)
        self._shard_rows = plan.shard_rows
        self._shards: dict[int, Shard] = {}

    def usable(self, row: int) -> np.ndarray:
        """Numbers of the templates that can use a row."""
        shard, place = self._find(row)
        return np.flatnonzero(shard.states[place : place + self._templates] != State.SKIPPED)

    def example(self, row: int, template: int) -> tuple[list[int], list[int], int] | None:
        """Input ids, target ids and characters cut; None where no example fits the limits.

        Raises:
            KeyError: the template cannot use the row.
        """
        shard, place = self._find(row)
        state = shard.states[place + template]
        if state == State.SKIPPED:
            raise KeyError((row, template))
        return shard.example(place + template) if state == State.PRESENT else None

    def _find(self, row: int) -> tuple[Shard, int]:
        number, within = divmod(row, self._shard_rows)
        shard = self._shards.get(number)
        if shard is None:
            info = self.manifest.shards[number]
            shard = self._shards[number] = Shard(self.plan.folder / info.name)
            if shard.info != info:
                raise RunError(
                    "The shard is not the one that the manifest names", where=str(self.plan.folder / info.name),
                    fix="remove the folder and run `mengzi-mt prepare` again",
                )  # fmt: skip
        return shard, within * self._templates


def open_prepared(plans: Sequence[TaskPlan]) -> list[PreparedTask]:
    """The prepared examples of each plan.

    Raises:
        InputError: some are not there.
    """
    found = [(plan, read_manifest(plan)) for plan in plans]
    missing = [plan for plan, manifest in found if manifest is None]
    if missing:
        names = ", ".join(plan.pool.task.name for plan in missing[:5]) + (", …" if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} of {len(plans)} tasks are not prepared as they stand now: {names}",
            where=str(missing[0].folder),
            fix="run `mengzi-mt prepare` with this recipe",
        )
    return [PreparedTask(plan, manifest) for plan, manifest in found if manifest is not None]
