"""``mengzi-mt compress quantise`` and ``mengzi-mt compress export``: a checkpoint in the form of a runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source
from mengzi_mt.errors import InputError

QUANTISE_HELP = "Write a checkpoint in 8-bit integers for this package's own scorer and generator: CHECKPOINT OUT."
EXPORT_HELP = "Write a checkpoint in the form of a runtime, compared with float32 on built-in prompts: CHECKPOINT OUT --to onnx."

Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint folder.")]
Out = Annotated[Path, typer.Argument(help="Folder to write.")]


def quantise(
    checkpoint: Checkpoint,
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value of the recipe")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Fine-tune by this training recipe first, with the rounding in the forward pass.")
    ] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
) -> None:
    """The int8 export of torch."""
    if recipe is None:
        if overrides:
            raise InputError(f"{overrides[0]!r} is for a recipe", where="OVERRIDES", fix="give one with --recipe")
        _export(checkpoint, out, "torch", "int8")
        return
    from mengzi_mt.cli.train import run_recipe
    from mengzi_mt.compression.qat import rounding_recipe
    from mengzi_mt.resources import resolve

    loaded = rounding_recipe(recipe, Path(resolve(str(checkpoint))), overrides or [])
    source = data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map)
    final = run_recipe(loaded, source, resume=True, accept_changes=False)
    _export(final, out, "torch", "int8")


def export(
    checkpoint: Checkpoint,
    out: Out,
    to: Annotated[str, typer.Option("--to", help="torch, ctranslate2 or onnx.")] = "torch",
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="float32, bfloat16 (a plain checkpoint for torch), int8, int8_float32 (ctranslate2)."),
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="The older name of --precision.", hidden=True)] = None,
) -> None:
    """A checkpoint without its trainer state, or an export folder."""
    if precision and dtype and precision != dtype:
        raise InputError("--precision and --dtype differ", where="--dtype", fix="give --precision alone")
    _export(checkpoint, out, to, precision or dtype or ("bfloat16" if to == "torch" else "int8"))


def _export(checkpoint: Path, out: Path, to: str, precision: str) -> None:
    from typing import get_args

    from mengzi_mt.compression.export import ExportSettings, Target
    from mengzi_mt.compression.export import export as write
    from mengzi_mt.resources import resolve
    from mengzi_mt.runtimes.export_folder import EXPORT_FILE, is_export

    target = next((name for name in get_args(Target) if name == to), None)
    if target is None:
        raise InputError(f"Unknown form {to!r}", where="--to", fix=f"use {', '.join(get_args(Target))}")
    write(Path(resolve(str(checkpoint))), out, ExportSettings(to=target, precision=precision))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB")
    if is_export(out):
        check = json.loads((out / EXPORT_FILE).read_text(encoding="utf-8"))["check"]
        typer.echo(
            f"beside float32: {check['log_probabilities']} log-probabilities differ by at most {check['largest_difference']:.2g} "
            f"({check['mean_difference']:.2g} in the mean), best choice the same for {check['same_best_choice']} of "
            f"{check['prompts']} prompts, greedy answer for {check['same_greedy_answers']} of {check['open_prompts']}"
        )
