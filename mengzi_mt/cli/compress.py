"""``mengzi-mt compress``: smaller forms of a checkpoint."""

from __future__ import annotations

import typer

from mengzi_mt.cli import compress_quantise

app = typer.Typer(help="Smaller forms of a checkpoint.", no_args_is_help=True)
app.command("quantise", help=compress_quantise.QUANTISE_HELP)(compress_quantise.quantise)
app.command("export", help=compress_quantise.EXPORT_HELP)(compress_quantise.export)
