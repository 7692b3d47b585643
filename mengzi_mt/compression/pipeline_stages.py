"""The stages of a pipeline: which there are, what each is made from, and which are finished.

A stage's folder is named after a fingerprint of its settings and of its input, which is the fingerprint of the stage before. So a
finished stage is found again, and a changed recipe has other folders from the first changed stage on; nothing is overwritten:

    distil-3f2a91bc/      a training run (final/ is the result) and stage.json
    prune-…/  fine-tune-…/    the same
    quantise-…/           model/, an export of torch in int8
    export-ctranslate2-int8-…/, teacher-ctranslate2-int8-…/    the same, of the last checkpoint and of the teacher
    measure-…/            what was measured of all of these
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mengzi_mt.compression.export import ExportSettings
from mengzi_mt.compression.pipeline_recipe import PipelineRecipe, form_name
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.provenance import weights_hash
from mengzi_mt.resources import resolve
from mengzi_mt.training.checkpoint import verify_checkpoint
from mengzi_mt.training.saving import differences, lasting

STAGE_FILE = "stage.json"
TEACHER = "teacher"
Kind = Literal["distil", "prune", "fine-tune", "export", "measure"]
Status = Literal["finished", "interrupted", "to do"]
_HERE = Path("here")
"""Stands for folders in what is fingerprinted."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as in folders and tables.
        kind: what is done.
        settings: all that decides its result, but for its input.
        source: name of the stage whose result it takes, or ``teacher``.
        fingerprint: of settings and input, 8 hex digits.
        folder: its own.
        form: of an export.
    """

    name: str
    kind: Kind
    settings: Mapping[str, Any]
    source: str
    fingerprint: str
    folder: Path
    form: ExportSettings | None = None

    @property
    def result(self) -> Path:
        """The checkpoint, the export, or the folder of what was measured."""
        if self.kind == "measure":
            return self.folder
        return self.folder / ("model" if self.kind == "export" else "final")

    def told(self) -> dict[str, Any]:
        """What ``stage.json`` says; {} where the stage was not begun."""
        return _read(self.folder)

    def status(self) -> Status:
        """Whether it is done, and its result whole."""
        told = self.told()
        if not told:
            return "to do"
        if not told["finished"]:
            return "interrupted"
        try:
            if self.kind != "measure":
                verify_checkpoint(self.result)
        except InputError:
            return "interrupted"
        return "finished"

    def changes(self) -> str | None:
        """How it differs from the newest finished stage of its name with another fingerprint, if there is one."""
        others = [folder for folder in self.folder.parent.glob(f"{self.name}-????????") if folder != self.folder]
        earlier = [folder for folder in others if _read(folder).get("finished") and _read(folder)["stage"] == self.name]
        if not earlier:
            return None
        newest = max(earlier, key=lambda folder: (folder / STAGE_FILE).stat().st_mtime)
        found = differences(_read(newest)["settings"], dict(self.settings)) or ["its input is another"]
        return f"{'; '.join(found[:3])}{' …' if len(found) > 3 else ''}; {newest.name} stays"

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around the work: what it took, over all interruptions, stands in ``stage.json``."""
        before, began = float(self.told().get("seconds", 0.0)), time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(before, finished=False)
        finished = False
        try:
            yield
            finished = True
        finally:
            self._write(before + time.perf_counter() - began, finished=finished)

    def _write(self, seconds: float, *, finished: bool) -> None:
        told = {
            "stage": self.name, "source": self.source, "fingerprint": self.fingerprint, "settings": self.settings,
            "seconds": seconds, "finished": finished,
        }  # fmt: skip
        beside = self.folder / f"{STAGE_FILE}.tmp"
        beside.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        beside.rename(self.folder / STAGE_FILE)


def _read(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def plan(recipe: PipelineRecipe) -> list[Stage]:
    """The recipe's stages, in order; the last one measures.

    Raises:
        InputError: no teacher there.
    """
    stages: list[Stage] = []
    prints = {TEACHER: _teacher_print(recipe.teacher)}

    def add(name: str, kind: Kind, settings: Mapping[str, Any], source: str, form: ExportSettings | None = None) -> str:
        fingerprint = _print([kind, settings, prints[source]])
        stages.append(Stage(name, kind, settings, source, fingerprint, recipe.run_dir / f"{name}-{fingerprint}", form))
        prints[name] = fingerprint
        return name

    last = TEACHER
    if recipe.distil:
        last = add("distil", "distil", lasting(recipe.distil_recipe(str(_HERE), _HERE).model_dump(mode="json")), last)
    if recipe.prune:
        last = add("prune", "prune", lasting(recipe.prune_recipe(str(_HERE), _HERE).model_dump(mode="json")), last)
    if recipe.quantise and recipe.quantise.fine_tune:
        last = add("fine-tune", "fine-tune", lasting(recipe.rounding_recipe(str(_HERE), _HERE).model_dump(mode="json")), last)
    for form in recipe.forms():
        own = bool(recipe.quantise) and form == ExportSettings()
        add("quantise" if own else f"export-{form_name(form)}", "export", form.model_dump(), last, form)
    if recipe.measure.teacher_exports and last != TEACHER:
        for form in recipe.forms():
            add(f"{TEACHER}-{form_name(form)}", "export", form.model_dump(), TEACHER, form)
    measured = recipe.measure.model_dump(mode="json") | {"data": recipe.data.model_dump(mode="json"), "of": dict(prints)}
    add("measure", "measure", measured, TEACHER)
    return stages


def _teacher_print(teacher: str) -> str:
    place = Path(resolve(teacher))
    if not place.is_dir() and (teacher.startswith((".", "/", "~")) or teacher.count("/") != 1):
        raise InputError(
            "There is no teacher: the folder does not exist", where=f"teacher: {teacher}", fix="give a checkpoint folder"
        )
    return weights_hash(place) or teacher


def _print(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:8]
