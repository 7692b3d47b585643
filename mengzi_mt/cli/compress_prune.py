"""``mengzi-mt compress prune``: a recipe makes a checkpoint smaller."""

from __future__ import annotations

from typing import Annotated

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source

HELP = "Remove pieces, layers, heads and neurons from a checkpoint: RECIPE [key.path=value …]."


def prune(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Parse, prune, print the result's folder. The same command goes on with an interrupted run."""
    from mengzi_mt.compression.pruning_recipe import load_prune_recipe
    from mengzi_mt.config import dump_recipe

    loaded = load_prune_recipe(recipe, overrides)
    if print_config:
        typer.echo(dump_recipe(loaded), nl=False)
        return

    from mengzi_mt.compression.pruning import prune as run_pruning

    source = data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map)
    typer.echo(str(run_pruning(loaded, source)))
