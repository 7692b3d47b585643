"""``mengzi-mt train`` and ``python train.py``: a recipe becomes checkpoints."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source

if TYPE_CHECKING:
    from mengzi_mt.config import Recipe
    from mengzi_mt.tasks.rows import DataSource

HELP = "Train a T5 on the mixture of a recipe: RECIPE [key.path=value …]."


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run of the same folder.")] = True,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Continue although the recipe differs from the checkpoint's.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the mixture, print tokens, FLOPs, hours and memory of the run, and stop.")
    ] = False,
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1, help="With --dry-run: share of the data sheets' peak that is reached.")
    ] = 0.4,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Parse, set up, train."""
    from mengzi_mt.config import dump_recipe, load_recipe

    loaded = load_recipe(recipe, overrides)
    if print_config:
        typer.echo(dump_recipe(loaded), nl=False)
        return
    source = data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map)
    if dry_run:
        from mengzi_mt.cli.plan import print_plan

        print_plan(loaded, source, mfu)
        return
    run_recipe(loaded, source, resume=resume, accept_changes=accept_changes)


def run_recipe(recipe: Recipe, source: DataSource, *, resume: bool, accept_changes: bool) -> Path:
    """Set a recipe's run up, train it, print the final checkpoint's folder and return it."""
    from mengzi_mt.pretraining.instances import with_objective
    from mengzi_mt.training.devices import Devices
    from mengzi_mt.training.loop import train as run_training
    from mengzi_mt.training.preparation import with_stream
    from mengzi_mt.training.setup import TRAIN_TOKENIZER, set_up

    devices = Devices(recipe.training)
    leaves_files = recipe.model.tokenizer == TRAIN_TOKENIZER or source.kind == "hub"
    with devices.failures_explained():
        with devices.main_first() if leaves_files else nullcontext():
            run = with_objective(with_stream(set_up(recipe, source), source))
        final = run_training(run, resume=resume, accept_changes=accept_changes)
    if devices.main:
        typer.echo(str(final))
    devices.close()
    return final
