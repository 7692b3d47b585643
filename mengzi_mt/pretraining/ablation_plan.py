"""What an ablation's folder holds: the plan that a resumed command keeps to, the runs, and their scores.

DIR/plan.json                        recipe, corpus, data and budget, written once
DIR/runs/<variant>-<seed>/           an ordinary encoder run
DIR/scores/<variant>-<seed>/*.json   held_out, and one for each task, written when it is done
DIR/results.json, report.html, ablation.md, ablation.svg
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengzi_mt.data.token_shards import TokenCorpus, check_tokenizer, open_corpus, write_text
from mengzi_mt.errors import InputError, first_line
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.pretraining.ablation_budget import Budget, runs_of
from mengzi_mt.pretraining.ablation_recipe import AblationRecipe
from mengzi_mt.pretraining.encoder_examples import untagged
from mengzi_mt.pretraining.encoder_recipe import EncoderRecipe
from mengzi_mt.pretraining.finetuning_data import task_kind
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.training.saving import differences, with_defaults

SCHEMA = "mengzi-mt/ablation/1"
HELD_OUT = "held_out"


@dataclass(frozen=True)
class Plan:
    """An ablation with its budget."""

    recipe: AblationRecipe
    corpus: dict[str, Any]
    data: dict[str, Any]
    budget: Budget

    @property
    def folder(self) -> Path:
        """Of the whole ablation."""
        return self.recipe.run_dir

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Variant and seed of every run, in order."""
        return runs_of(list(self.recipe.variants), self.recipe.seeds)

    def run_recipe(self, variant: str, seed: int) -> EncoderRecipe:
        """The recipe of one run."""
        return self.recipe.run_recipe(variant, seed, self.budget.steps, self.folder / "runs" / run_name(variant, seed))

    def score_path(self, variant: str, seed: int, what: str) -> Path:
        """Where a score is kept; ``what`` is a task or :data:`HELD_OUT`."""
        return self.folder / "scores" / run_name(variant, seed) / f"{what}.json"

    @property
    def scores(self) -> list[str]:
        """What every run is scored on."""
        return [HELD_OUT, *self.recipe.finetuning.tasks]

    def write(self) -> None:
        """Keep it for commands that go on."""
        raw = {
            "schema": SCHEMA,
            "recipe": self.recipe.model_dump(mode="json"),
            "corpus": self.corpus,
            "data": self.data,
            "budget": self.budget.as_json(),
        }
        write_text(self.folder / "plan.json", json.dumps(raw, ensure_ascii=False, indent=1) + "\n")


def run_name(variant: str, seed: int) -> str:
    """Of a run's folder."""
    return f"{variant}-{seed}"


def described_corpus(corpus: TokenCorpus) -> dict[str, Any]:
    """What of a corpus must stay as it is."""
    return {"fingerprint": corpus.manifest["fingerprint"], "tagger": corpus.manifest.get("tags", {}).get("tagger")}


def described_data(source: DataSource) -> dict[str, Any]:
    """Likewise of the tasks' rows."""
    return {"source": source.kind, "map": source.data_map.name if source.data_map else None}


def read_plan(folder: Path) -> Plan | None:
    """The plan that a folder holds; None where there is none.

    Raises:
        InputError: a damaged file.
    """
    path = folder / "plan.json"
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise ValueError(f"its schema is {raw['schema']!r}")
        recipe = AblationRecipe.model_validate(raw["recipe"])
        return Plan(recipe.model_copy(update={"output": str(folder)}), raw["corpus"], raw["data"], Budget.from_json(raw["budget"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The ablation's plan cannot be read: {first_line(error)}", where=str(path), fix="set another `output`"
        ) from error


def check_inputs(recipe: AblationRecipe, source: DataSource) -> dict[str, Any]:
    """See that corpus and tasks can be used, before anything is measured; describes the corpus.

    Raises:
        InputError: an untagged corpus, another tokenizer's, an unknown or unfit task, missing files, rows without answers.
    """
    corpus = open_corpus(Path(recipe.corpus))
    check_tokenizer(corpus, load_tokenizer(recipe.model.tokenizer))
    needs = [variant for variant in recipe.variants if recipe.objectives_of(variant).needs_tags]
    if needs and "tags" not in corpus.manifest:
        raise untagged(corpus)
    for name in recipe.finetuning.tasks:
        task = get_task(name)
        _, _, answer = task_kind(task)
        for split in ("train", "validation"):
            if not any(answer in row.values for row in load_rows(task, split, source, 100)):
                raise InputError(
                    f"The rows of the split {split!r} have no answers", where=f"task {name!r}, field {answer!r}",
                    fix="use files with labels (--data-dir, --data-map)",
                )  # fmt: skip
    return described_corpus(corpus)


def check_same(plan: Plan, recipe: AblationRecipe, corpus: dict[str, Any], source: DataSource) -> None:
    """See that a folder's plan is of this recipe, corpus and data.

    Raises:
        InputError: it is of others, named with what differs.
    """
    before = {
        "recipe": with_defaults(AblationRecipe, plan.recipe.model_dump(mode="json")),
        "corpus": plan.corpus,
        "data": plan.data,
    }
    now = {"recipe": recipe.model_dump(mode="json"), "corpus": corpus, "data": described_data(source)}
    different = differences(before["recipe"], now["recipe"]) + [
        change for key in ("corpus", "data") for change in differences(before[key], now[key], key)
    ]
    if different:
        raise InputError(
            "The folder holds results of another ablation: " + "; ".join(different), where=str(plan.folder),
            fix="restore these values, or set another `output`",
        )  # fmt: skip
