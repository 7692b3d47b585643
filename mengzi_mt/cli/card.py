"""``mengzi-mt card``: the card of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HELP = "Write the card of a model: tasks, data and licences, scores, limits."


def card(
    model: Annotated[Path, typer.Argument(help="Folder of a checkpoint or of an export.")],
    results: Annotated[list[Path] | None, typer.Option("--results", help="Result folder of `evaluate`; repeatable.")] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown to put in: what you saw, limits, outputs.")] = None,
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="Run folder the model came out of; repeatable, pretraining first.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put it into the folder as README.md instead of printing it.")] = False,
) -> None:
    """The card, printed or written into the model's folder."""
    from mengzi_mt.sdk.card import write_card
    from mengzi_mt.training.checkpoint import replace_card

    text = write_card(model, results or [], notes, run or [])
    if write:
        replace_card(model, text)
        typer.echo(str(model / "README.md"))
    else:
        typer.echo(text, nl=False)
