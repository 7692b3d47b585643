"""``mengzi-mt pretrain ablate``: what each objective is worth, at equal tokens, over seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source

HELP = "Compare objectives: pretrain every variant with every seed, fine-tune, table with intervals. RECIPE [key.path=value …]."


def ablate(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    corpus: Annotated[str | None, typer.Option(help="Folder of the prepared and tagged corpus, in place of the recipe's.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    hours: Annotated[
        float, typer.Option("--hours", min=0, help="By the clock for everything; decides how many steps each run has.")
    ] = 3.0,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Runs side by side; of several each has one thread.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, print the budget, and stop.")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Parse, measure, run, write. The same command again goes on."""
    from mengzi_mt.config import dump_recipe
    from mengzi_mt.pretraining.ablation_recipe import load_ablation_recipe

    loaded = load_ablation_recipe(recipe, [*(overrides or []), *([f"corpus={corpus}"] if corpus else [])])
    if print_config:
        typer.echo(dump_recipe(loaded), nl=False)
        return
    source = data_source(data, data_dir, data_map)

    from mengzi_mt.pretraining.ablation import make_plan, run_plan
    from mengzi_mt.pretraining.ablation_budget import sentences
    from mengzi_mt.pretraining.ablation_results import write_results

    def say(text: str) -> None:
        typer.echo(text, err=True)

    plan, decided = make_plan(loaded, source, data_map, hours, processes, say)
    if decided:
        typer.echo(f"the budget was decided when {plan.folder} was begun, for {plan.budget.hours:g} hours:")
    for line in sentences(plan.budget, list(plan.recipe.variants), plan.recipe.seeds):
        typer.echo(line)
    if dry_run:
        return
    if not decided:
        plan.write()
    run_plan(plan, source, data_map, processes, say)
    typer.echo(str(write_results(plan)))
