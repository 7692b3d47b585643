"""The command line's entry: groups, error printing, exit status."""

from __future__ import annotations

import os
import sys

import typer

from mengzi_mt import __version__
from mengzi_mt.cli import (
    browse,
    card,
    compare,
    compress,
    compress_distil,
    compress_prune,
    compress_run,
    corpus,
    corpus_tag,
    data,
    evaluate,
    export,
    few_shot,
    infer,
    prepare,
    pretrain,
    pretrain_ablate,
    pretrain_encoder,
    prompts,
    push,
    runs,
    serve,
    submit,
    tasks,
    tokenizer,
    train,
)
from mengzi_mt.errors import MengziError

# Before torch is imported: OpenMP threads that spin while they wait slow shared cores down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(
    name="mengzi-mt",
    help="Prompt-based multi-task text-to-text learning in Chinese.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.add_typer(tasks.app, name="tasks")
app.add_typer(prompts.app, name="prompts")
app.add_typer(data.app, name="data")
app.add_typer(corpus.app, name="corpus")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(compress.app, name="compress")
app.add_typer(export.app, name="export")
app.add_typer(runs.app, name="runs")
app.add_typer(pretrain.app, name="pretrain")
compress.app.command("prune", help=compress_prune.HELP)(compress_prune.prune)
compress.app.command("run", help=compress_run.HELP)(compress_run.run)
corpus.app.command("tag", help=corpus_tag.HELP)(corpus_tag.tag)
pretrain.app.command("encoder", help=pretrain_encoder.HELP)(pretrain_encoder.encoder)
pretrain.app.command("ablate", help=pretrain_ablate.HELP)(pretrain_ablate.ablate)
compress.app.command("distil", help=compress_distil.HELP)(compress_distil.distil)
app.command("train", help=train.HELP)(train.train)
app.command("prepare", help=prepare.HELP)(prepare.prepare)
app.command("evaluate", help=evaluate.HELP)(evaluate.evaluate)
app.command("compare", help=compare.HELP)(compare.compare)
app.command("browse", help=browse.HELP)(browse.browse)
app.command("few-shot", help=few_shot.HELP)(few_shot.few_shot)
app.command("infer", help=infer.HELP)(infer.infer)
app.command("card", help=card.HELP)(card.card)
app.command("push", help=push.HELP)(push.push)
app.command("submit", help=submit.HELP)(submit.submit)
app.command("serve", help=serve.HELP)(serve.serve)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and stop."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    if debug:
        os.environ["MENGZI_MT_DEBUG"] = "1"


def run(application: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run a Typer application with this project's error contract: 0 done, 1 a failed run, 2 bad usage or input."""
    try:
        application(args=arguments)
    except MengziError as error:
        if os.environ.get("MENGZI_MT_DEBUG"):
            raise
        number = os.environ.get("RANK", "0")  # of this process among those of a launcher
        print(f"error{'' if number == '0' else f' (process {number})'}: {error.paragraph()}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def main() -> None:
    """The console script ``mengzi-mt``."""
    run(app)


def script(command: str) -> None:
    """The thin root scripts: ``python train.py …`` is ``mengzi-mt train …``, ``--debug`` included."""
    arguments = sys.argv[1:]
    debug = ["--debug"] if "--debug" in arguments else []
    run(app, [*debug, command, *(argument for argument in arguments if argument != "--debug")])
