"""``mengzi-mt compress distil``: a small model learns from a large one."""

from __future__ import annotations

from typing import Annotated

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source

HELP = "Train a student on what a teacher knows: RECIPE [key.path=value …]."


def distil(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run of the same folder.")] = True,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Continue although the recipe differs from the checkpoint's.")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Parse, set up, distil. A recipe with a `corpus` distils an encoder, any other a T5 on its mixture."""
    from mengzi_mt.compression.distil_recipe import EncoderDistilRecipe, load_distil_recipe
    from mengzi_mt.config import dump_recipe

    loaded = load_distil_recipe(recipe, overrides)
    if print_config:
        typer.echo(dump_recipe(loaded), nl=False)
        return
    if isinstance(loaded, EncoderDistilRecipe):
        from mengzi_mt.compression.distil_encoder import distil_encoder

        typer.echo(str(distil_encoder(loaded, resume=resume)))
        return

    from mengzi_mt.compression.distil import distil as run_distillation
    from mengzi_mt.training.devices import Devices

    source = data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map)
    final = run_distillation(loaded, source, resume=resume, accept_changes=accept_changes)
    devices = Devices(loaded.training)
    if devices.main:
        typer.echo(str(final))
    devices.close()
