"""``mengzi-mt few-shot``: FewCLUE's folds of each task, fine-tuned and scored one after another."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt.cli.common import DataDir, DataKind, DataMapOption, data_source
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.config import Recipe
    from mengzi_mt.tasks.rows import DataSource

HELP = "Fine-tune on each few-shot fold of each task and score it: RECIPE [key.path=value …] --tasks eprstmt,tnews."
_RESULT = "fold.json"


def few_shot(
    recipe: Annotated[str, typer.Argument(help="Recipe of one fold; the task and the splits are set from outside.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    tasks: Annotated[
        str, typer.Option("--tasks", help="Tasks, separated by commas.")
    ] = "eprstmt,csldcp,tnews,iflytek,ocnli,bustm,chid,csl,cluewsc",
    folds: Annotated[str, typer.Option("--folds", help="Folds, separated by commas: k means train_k and dev_k.")] = "0,1,2,3,4",
    score_split: Annotated[str, typer.Option("--score-split", help="Split that is scored.")] = "dev_few_all",
    every_row: Annotated[
        bool,
        typer.Option("--every-row", help="Score also the rows whose text the fold has seen, as was published on test_public."),
    ] = False,
    max_templates: Annotated[
        int | None, typer.Option("--max-templates", min=1, help="At most so many templates are scored, in file order.")
    ] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
    output: Annotated[Path | None, typer.Option("--output", help="Result folder; by default runs/few-shot/<recipe>.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep every fold's checkpoints.")] = False,
) -> None:
    """Every fold of every task that is not finished yet; then the table."""
    from mengzi_mt.config import load_recipe
    from mengzi_mt.evaluation.few_shot import fold_splits, markdown, summarise
    from mengzi_mt.tasks.registry import get_task

    names = [get_task(name.strip()).name for name in tasks.split(",")]
    out = output or Path("runs/few-shot") / load_recipe(recipe, overrides).name
    scoring = Scoring(score_split, every_row, max_templates)
    finished = []
    for task in names:
        for fold in _numbers(folds):
            train_split, dev_split = fold_splits(fold)
            folder = out / task / f"fold-{fold}"
            own = [f"mixture.tasks=[{task}]", f"data.train_split={train_split}", f"data.validation_split={dev_split}"]
            loaded = load_recipe(recipe, [*(overrides or []), *own, f"output='{folder / 'run'}'"])
            source = data_source(data or loaded.data.source, data_dir, data_map or loaded.data.map)
            finished.append(_fold(task, fold, loaded, source, scoring, folder, keep))
    results = summarise(finished, score_split)
    results |= {"recipe": recipe, "overrides": overrides or [], "start": finished[0]["start"], "every_row": every_row}
    (out / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (out / "results.md").write_text(markdown(results), encoding="utf-8")
    typer.echo(markdown(results))
    typer.echo(f"{out / 'results.json'}\n{out / 'results.md'}")


@dataclass(frozen=True)
class Scoring:
    """What is scored: split, whether also the rows that a fold has seen, and how many templates."""

    split: str
    every_row: bool
    max_templates: int | None


def _numbers(folds: str) -> list[int]:
    try:
        return [int(fold) for fold in folds.split(",")]
    except ValueError:
        raise InputError(f"{folds!r} is no list of folds", where="--folds", fix="for instance --folds 0,1,2,3,4") from None


def _fold(task: str, fold: int, recipe: Recipe, source: DataSource, scoring: Scoring, folder: Path, keep: bool) -> dict[str, Any]:
    """One fold's result: read where it is finished, else trained (or trained on, after an interruption) and scored."""
    from mengzi_mt.evaluation.provenance import weights_hash
    from mengzi_mt.resources import resolve

    start = recipe.model.init
    identity = {
        "recipe": recipe.model_dump(mode="json", exclude={"description", "tracking", "output"}),
        "start": {"name": start, "hash": weights_hash(Path(resolve(start))) if start else None},
        "data": {"source": source.kind, "map": source.data_map.name if source.data_map else None},
        "scoring": {"split": scoring.split, "every_row": scoring.every_row, "max_templates": scoring.max_templates},
    }
    identity = json.loads(json.dumps(identity))
    path = folder / _RESULT
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key, value in identity.items() if result.get(key) != value]
        if different:
            raise InputError(
                f"Fold {fold} of {task!r} was finished with other settings ({', '.join(different)})",
                where=str(path),
                fix="set another --output, or remove the fold's folder to run it again",
            )
        _say(f"{task}, fold {fold}: finished before")
        return result
    _say(f"{task}, fold {fold}: fine-tuning")
    best = _train(recipe, source)
    entry, left_out = _score(task, fold, best, recipe, source, scoring, folder)
    from mengzi_mt.training.checkpoint import read_manifest

    manifest = read_manifest(best)
    result = {
        "task": task, "fold": fold, **identity, "step": manifest["step"], "left_out": left_out,
        "zero_shot_tasks_trained_on": manifest["zero_shot_tasks_trained_on"], "entry": entry,
    }  # fmt: skip
    beside = path.with_suffix(".unfinished")
    beside.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    beside.rename(path)
    if not keep:
        for checkpoint in [*recipe.run_dir.glob("step-*"), recipe.run_dir / "final"]:
            shutil.rmtree(checkpoint, ignore_errors=True)
    _say(f"{task}, fold {fold}: {entry['metric']} {entry['score']:.3f} on {entry['rows']} rows, step {manifest['step']}")
    return result


def _train(recipe: Recipe, source: DataSource) -> Path:
    """The checkpoint that the fold's validations chose; the last one where the recipe keeps none."""
    from mengzi_mt.training.checkpoint import best_checkpoint
    from mengzi_mt.training.loop import train
    from mengzi_mt.training.setup import set_up

    final = train(set_up(recipe, source))
    return best_checkpoint(recipe.run_dir) or final


def _score(
    task: str, fold: int, checkpoint: Path, recipe: Recipe, source: DataSource, scoring: Scoring, folder: Path
) -> tuple[dict[str, Any], int]:
    """The fold's entry, and how many rows of the split were left out."""
    from torch.nn import Module

    from mengzi_mt.evaluation.few_shot import rows_seen
    from mengzi_mt.evaluation.generation import Generator
    from mengzi_mt.evaluation.runner import Options, Quiet, evaluate_task
    from mengzi_mt.evaluation.scoring import ChoiceScorer
    from mengzi_mt.models.devices import pick_device
    from mengzi_mt.models.t5 import load_model
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.tasks.registry import get_task

    spec = get_task(task)
    seen = frozenset() if scoring.every_row else rows_seen(spec, source, fold, scoring.split)
    model = load_model(checkpoint)
    Module.to(model, pick_device(recipe.training.device, "training.device"))
    tokenizer = load_tokenizer(checkpoint)
    limits: dict[str, Any] = {"max_input": recipe.lengths.max_input}
    scorer, generator = ChoiceScorer(model, tokenizer, **limits), Generator(model, tokenizer, **limits)
    options = Options(split=scoring.split, max_templates=scoring.max_templates, without=seen)
    return evaluate_task(spec, source, options, scorer, generator, folder, Quiet(_say)), len(seen)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
