"""``mengzi-mt compress``: smaller forms of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mengzi_mt.errors import InputError

app = typer.Typer(help="Smaller forms of a checkpoint.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``export`` a subcommand."""


@app.command("export")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or bfloat16 weights.")] = "bfloat16",
) -> None:
    """Write a checkpoint without its trainer state, with weights of another type."""
    import torch

    from mengzi_mt.models.t5 import load_model
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.training.checkpoint import read_manifest, save_checkpoint

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise InputError(f"Unknown type {dtype!r}", where="--dtype", fix="use float32 or bfloat16")
    manifest = read_manifest(checkpoint)
    save_checkpoint(out, load_model(checkpoint), load_tokenizer(checkpoint), {**manifest, "dtype": dtype}, dtype=types[dtype])
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB")
