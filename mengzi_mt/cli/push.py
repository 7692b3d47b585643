"""``mengzi-mt push``: a model to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mengzi_mt.errors import InputError

HELP = "Upload a model to the hub, or lay it out for ModelScope."


def push(
    model: Annotated[Path, typer.Argument(help="Folder of a checkpoint or of an export.")],
    repository: Annotated[str | None, typer.Argument(help="owner/name on the hub.")] = None,
    modelscope: Annotated[Path | None, typer.Option("--modelscope", help="Write ModelScope's layout into this folder.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Of a repository that is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Of the hub, where it is not the public one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and their sizes, and stop.")] = False,
) -> None:
    """The files of the model, without what serves training alone."""
    from mengzi_mt.sdk.publish import files_of, lay_out_for_modelscope
    from mengzi_mt.sdk.publish import push as upload

    if dry_run:
        names = files_of(model)
        for name in names:
            typer.echo(f"{(model / name).stat().st_size / 1e6:10.2f} MB  {name}")
        typer.echo(f"{sum((model / name).stat().st_size for name in names) / 1e6:10.2f} MB  in {len(names)} files")
    elif modelscope:
        written = lay_out_for_modelscope(model, modelscope)
        typer.echo(f"{modelscope}: {len(written)} files; upload it: modelscope upload OWNER/NAME {modelscope}")
    elif repository:
        typer.echo(upload(model, repository, endpoint=endpoint, private=private, revision=revision, message=message))
    else:
        raise InputError("No repository is named", where="push", fix="give owner/name, --modelscope FOLDER or --dry-run")
