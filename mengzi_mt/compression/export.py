"""Exports: a checkpoint in the form of a runtime, compared with float32 before it is put in its place."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.compression.export_check import NEW_TOKENS, compare, refuse_wrong
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.evaluation.loading import TREES, Scorers, load_exported
from mengzi_mt.evaluation.provenance import weights_hash
from mengzi_mt.evaluation.scoring import PRECISIONS as FLOATS
from mengzi_mt.evaluation.scoring import ChoiceScorer
from mengzi_mt.models.pruned import pruned_section
from mengzi_mt.models.t5 import load_model, parameter_count, save_config
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.runtimes.ctranslate2_model import write_ctranslate2
from mengzi_mt.runtimes.export_folder import EXPORT_FILE, PRECISIONS, RUNTIMES, Export, describe_files, write_export
from mengzi_mt.runtimes.onnx_model import write_onnx
from mengzi_mt.runtimes.torch_int8 import write_int8
from mengzi_mt.settings import Settings
from mengzi_mt.training.card import model_card
from mengzi_mt.training.checkpoint import MANIFEST, read_manifest, save_checkpoint, write_checkpoint

Target = Literal["torch", "ctranslate2", "onnx"]
LIBRARIES = ("torch", "transformers", "ctranslate2", "onnx", "onnxruntime")


class ExportSettings(Settings):
    """Into what a checkpoint is turned.

    Attributes:
        to: whose form. ``torch`` in a float precision is a plain checkpoint, in int8 an export that this package runs.
        precision: of the weights (and of products, where the runtime has them in it).
    """

    to: Target = "torch"
    precision: str = "int8"


def precisions(to: str) -> tuple[str, ...]:
    """What there is for a target."""
    return (*FLOATS, *PRECISIONS["torch-int8"]) if to == "torch" else PRECISIONS[to]


def export(checkpoint: Path, out: Path, settings: ExportSettings) -> Path:
    """Write a checkpoint in another form; see :class:`ExportSettings`.

    Raises:
        InputError: a precision that the target does not have, a model of a shape that it cannot take, a library that is not
            installed, or a folder in the way.
        RunError: a float32 export that gives other results than the checkpoint. Nothing is left behind.
    """
    if settings.precision not in precisions(settings.to):
        raise InputError(
            f"{settings.to} has no precision {settings.precision!r}", where="--precision",
            fix=f"use {', '.join(precisions(settings.to))}",
        )  # fmt: skip
    refuse_place(checkpoint, out)
    model, tokenizer, manifest = load_model(checkpoint), load_tokenizer(checkpoint), read_manifest(checkpoint)
    if settings.to == "torch" and settings.precision in FLOATS:
        dtype = FLOATS[settings.precision]
        save_checkpoint(out, model, tokenizer, {**manifest, "dtype": settings.precision}, dtype=dtype)
        return out
    runtime = "torch-int8" if settings.to == "torch" else settings.to
    source = {"name": str(manifest.get("recipe", {}).get("name") or checkpoint.name), "hash": weights_hash(checkpoint)}

    def fill(beside: Path) -> None:
        save_config(model, beside)
        if section := pruned_section(model):  # what loading it for the check reads
            (beside / MANIFEST).write_text(json.dumps(section), encoding="utf-8")
        write_runtime(model, tokenizer, beside, runtime, settings.precision)
        files, count = describe_files(beside, runtime), parameter_count(model)
        made = Export(runtime, settings.precision, count, source, files, versions(), RUNTIMES[runtime])
        write_export(beside, made)
        check = compare(plain_scorers(model, tokenizer), load_exported(beside, tokenizer, max_new_tokens=NEW_TOKENS))
        refuse_wrong(check, settings.precision)
        write_export(beside, Export(**{**vars(made), "check": check}))

    card = export_card(model_card(manifest), runtime, settings.precision)
    write_checkpoint(out, fill, tokenizer, {**manifest, "dtype": settings.precision, "runtime": runtime}, card)
    return out


def refuse_place(checkpoint: Path, out: Path) -> None:
    """Raise where writing ``out`` would replace something that is no export and no checkpoint.

    Raises:
        InputError: it would.
    """
    if out.resolve() == checkpoint.resolve():
        raise InputError("The export would replace its checkpoint", where=str(out), fix="give another folder")
    known = out.is_dir() and (not any(out.iterdir()) or any((out / name).is_file() for name in (MANIFEST, EXPORT_FILE)))
    if out.exists() and not known:
        raise InputError("Something else is there", where=str(out), fix="give a folder that does not exist yet")


def write_runtime(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path, runtime: str, precision: str
) -> None:
    """Write a runtime's files into a folder."""
    if runtime == "ctranslate2":
        write_ctranslate2(model, tokenizer, folder, precision)
    elif runtime == "onnx":
        write_onnx(model, folder, precision)
    else:
        write_int8(model, folder)


def plain_scorers(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> Scorers:
    """The float32 model as :func:`compare` takes it."""
    scorer, generator = ChoiceScorer(model, tokenizer), Generator(model, tokenizer, max_new_tokens=NEW_TOKENS)
    return Scorers(scorer, generator, model, "t5", TREES, parameter_count(model), "float32")


def versions() -> dict[str, str]:
    """Of this package, Python and the libraries that are installed."""
    from mengzi_mt import __version__

    found: dict[str, Any] = {"mengzi_mt": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = torch.__version__ if name == "torch" else version(name)
        except PackageNotFoundError:
            continue
    return found


def export_card(card: str, runtime: str, precision: str) -> str:
    """The checkpoint's card with what this folder is."""
    told = (
        f"\n## Form\n\nAn export of mengzi-mt for the runtime {runtime} in {precision}; `{EXPORT_FILE}` says what it was compared "
        "with. It is no checkpoint of transformers: `mengzi-mt evaluate`, and whatever else of mengzi-mt takes a checkpoint to run "
        "it, takes this folder.\n"
    )
    return card.replace("library_name: transformers", "library_name: mengzi-mt") + told
