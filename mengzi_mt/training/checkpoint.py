"""Checkpoints: folders that ``transformers`` loads unchanged, written beside and renamed, verified before use.

A checkpoint holds the model (``model.safetensors``, ``config.json``, ``generation_config.json``), the tokenizer,
``mengzi_mt.json`` (what it is made of, and the size of each file), a card (``README.md``) and ``trainer_state/`` for resuming.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.errors import InputError, RunError
from mengzi_mt.models.pruned import MANIFEST as MANIFEST
from mengzi_mt.models.pruned import SECTION, pruned_section
from mengzi_mt.models.t5 import save_model
from mengzi_mt.training.card import model_card

STATE_DIR = "trainer_state"
_PREFIX = "step-"
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class TrainerState:
    """What resuming needs beside the weights: the next step, the optimiser, the random states, counters, the recipe.

    ``averages`` holds the sums of the record that is not yet full and the best score; ``ema`` the averaged weights; ``lora`` the
    adapters of a run that trains these.
    """

    step: int
    optimiser: dict[str, Any]
    rng: dict[str, Any]
    counters: dict[str, Any]
    recipe: dict[str, Any]
    averages: dict[str, Any] = field(default_factory=dict)
    ema: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Folder of the checkpoint taken after ``step`` optimiser steps."""
    return run_dir / f"{_PREFIX}{step:07d}"


def save_checkpoint(
    folder: Path,
    model: T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    manifest: dict[str, Any],
    state: TrainerState | None = None,
    dtype: torch.dtype | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write a checkpoint beside its place and rename it there, so a killed run leaves no half-written one under the name.

    ``weights`` are the model's own where it holds only shards of them. ``also`` is called with the folder being written, to
    put further files there.

    Raises:
        RunError: the disk is full or not writable; what was written is removed, earlier checkpoints stay.
    """

    def fill(beside: Path) -> None:
        save_model(model, beside, dtype, weights)
        if also is not None:
            also(beside)

    own = {key: value for key, value in manifest.items() if key != SECTION} | pruned_section(model)
    write_checkpoint(folder, fill, tokenizer, own, model_card(own), state)


def write_checkpoint(
    folder: Path,
    fill: Callable[[Path], None],
    tokenizer: PreTrainedTokenizerBase,
    manifest: dict[str, Any],
    card: str,
    state: TrainerState | None = None,
) -> None:
    """Write a checkpoint of any model: ``fill`` puts its files into the folder that is given. See :func:`save_checkpoint`."""
    beside = folder.with_name(_UNFINISHED + folder.name)
    replaced = folder.with_name(f"{_UNFINISHED}replaced-{folder.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
        beside.mkdir(parents=True)
        fill(beside)
        save_tokenizer(tokenizer, beside)
        if state is not None:
            (beside / STATE_DIR).mkdir()
            tensors = {"optimiser": state.optimiser, "rng": state.rng, "ema": state.ema, "lora": state.lora}
            _save_tensors(tensors, beside / STATE_DIR / "tensors.pt")
            numbers = {"step": state.step, "counters": state.counters, "recipe": state.recipe, "averages": state.averages}
            _write_json(beside / STATE_DIR / "state.json", numbers)
        (beside / "README.md").write_text(card, encoding="utf-8")
        files = {str(path.relative_to(beside)): path.stat().st_size for path in sorted(beside.rglob("*")) if path.is_file()}
        _write_json(beside / MANIFEST, {**manifest, "files": files})
        _sync(beside)
        if folder.exists():
            folder.rename(replaced)
        beside.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(beside, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        if not isinstance(error, OSError) and "(os error" not in str(error):  # safetensors and tokenizers raise their own
            raise
        free = shutil.disk_usage(folder.parent).free // 2**20 if folder.parent.exists() else 0
        raise RunError(
            f"The checkpoint could not be written: {error}",
            where=f"{folder} ({free:,} MiB free on that disk)",
            fix="free some space and run the same command again; it resumes from the last complete checkpoint",
        ) from error


def replace_card(folder: Path, card: str) -> None:
    """Another ``README.md`` for a checkpoint, which stays whole."""
    (folder / "README.md").write_text(card, encoding="utf-8")
    manifest = read_manifest(folder)
    if isinstance(manifest.get("files"), dict):
        manifest["files"]["README.md"] = (folder / "README.md").stat().st_size
        _write_json(folder / MANIFEST, manifest)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The tokenizer's files, ``tokenizer.json`` without the indentation that is a third of its size."""
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer.json"
    if path.is_file():
        compact = json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, separators=(",", ":"))
        path.write_text(compact, encoding="utf-8")


def _save_tensors(value: Any, path: Path) -> None:
    try:
        torch.save(value, path)
    except RuntimeError as error:  # what torch's archive writer makes of a failed write
        raise OSError(f"{path.name}: {error}") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    """Force every file to the disk before the rename makes the checkpoint visible."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def read_manifest(folder: Path) -> dict[str, Any]:
    """``mengzi_mt.json`` of a checkpoint; an empty mapping for a checkpoint of other origin."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The checkpoint's manifest is damaged: {error}", where=str(path), fix="use another checkpoint") from error
    return value if isinstance(value, dict) else {}


def verify_checkpoint(folder: Path) -> None:
    """Check that every file of a checkpoint is there at its full size.

    Raises:
        InputError: a missing or truncated file, or no manifest at all.
    """
    manifest = read_manifest(folder)
    if not isinstance(manifest.get("files"), dict) or not manifest["files"]:
        raise InputError("This is no checkpoint of a training run", where=str(folder), fix=f"choose a folder with {MANIFEST}")
    for name, size in manifest["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            problem = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
            raise InputError(f"The checkpoint is incomplete: {name} {problem}", where=str(folder), fix="use an earlier checkpoint")


def _is_complete(folder: Path) -> bool:
    try:
        verify_checkpoint(folder)
    except InputError:
        return False
    return True


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first, whole or not."""
    if not run_dir.is_dir():
        return []
    return sorted(path for path in run_dir.glob(f"{_PREFIX}*") if path.is_dir())


def latest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest complete checkpoint that can be resumed, and what was wrong with newer ones."""
    problems: list[str] = []
    for folder in reversed(list_checkpoints(run_dir)):
        try:
            verify_checkpoint(folder)
            if (folder / STATE_DIR).is_dir():
                return folder, problems
            problems.append(f"{folder.name}: it has no trainer state")
        except InputError as error:
            problems.append(f"{folder.name}: {error.what}")
    return None, problems


def best_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint of a run's best validation, where the run kept it (``stopping.keep_best``)."""
    newest, _ = latest_checkpoint(run_dir)
    if newest is None:
        return None
    step = load_state(newest).averages.get("best", {}).get("step")
    folder = None if step is None else checkpoint_path(run_dir, step)
    return folder if folder is not None and _is_complete(folder) else None


def load_state(folder: Path) -> TrainerState:
    """The trainer state of a verified checkpoint."""
    numbers = json.loads((folder / STATE_DIR / "state.json").read_text(encoding="utf-8"))
    tensors = torch.load(folder / STATE_DIR / "tensors.pt", map_location="cpu", weights_only=True)
    return TrainerState(
        numbers["step"],
        tensors["optimiser"],
        tensors["rng"],
        numbers["counters"],
        numbers["recipe"],
        numbers.get("averages", {}),
        tensors.get("ema"),
        tensors.get("lora"),
    )


def prune_checkpoints(run_dir: Path, keep: int, best_step: int | None = None) -> None:
    """Remove all but the newest ``keep`` complete checkpoints and the best, and whatever an interrupted write left.

    A damaged checkpoint takes no place, or it would push out the good one that a run resumed from.

    Args:
        run_dir: the run's folder.
        keep: newest checkpoints to keep; the best takes a place of its own beside them if it is older.
        best_step: step of the best checkpoint.
    """
    kept = 0
    best = None if best_step is None else checkpoint_path(run_dir, best_step)
    for folder in reversed(list_checkpoints(run_dir)):
        if (kept < keep or folder == best) and _is_complete(folder):
            kept += 1
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in run_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(folder, ignore_errors=True)
