"""``mengzi-mt compress run``: all stages from a teacher to small forms, and one report."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source, print_table

HELP = "Distil, prune, quantise and export a teacher, and measure what comes out: RECIPE [key.path=value …]."


def run(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages, and which are finished, and stop.")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Parse, go through the stages. The same command goes on with what is not finished."""
    from mengzi_mt.compression.pipeline_recipe import load_pipeline_recipe
    from mengzi_mt.config import dump_recipe

    given = [f"data.source={data}"] if data else []
    given += [f"data.map={data_map}"] if data_map else []
    loaded = load_pipeline_recipe(recipe, [*(overrides or []), *given])
    if print_config:
        typer.echo(dump_recipe(loaded), nl=False)
        return
    if dry_run:
        from mengzi_mt.compression.pipeline_stages import plan

        rows = []
        for stage in plan(loaded):
            status = stage.status()
            changed = stage.changes() if status == "to do" else None
            rows.append([stage.name, stage.source, status, stage.folder.name, changed or ""])
        print_table(f"{loaded.name}, in {loaded.run_dir}", ["stage", "from", "status", "folder", "changed"], rows)
        return

    from mengzi_mt.compression.pipeline import run_pipeline

    source = data_source(loaded.data.source, data_dir, loaded.data.map)
    try:
        typer.echo(str(run_pipeline(loaded, source)))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the stage", file=sys.stderr)
        raise typer.Exit(130) from None
