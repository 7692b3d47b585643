"""Whole prunings of a tiny T5 on the bundled samples."""

import json
import os
import signal

import pytest
import torch
import yaml
from transformers import AutoModelForSeq2SeqLM
from typer.testing import CliRunner

from mengzi_mt.cli.main import app
from mengzi_mt.compression import pruning
from mengzi_mt.compression.pruning import prune
from mengzi_mt.compression.pruning_recipe import PruneRecipe, load_prune_recipe
from mengzi_mt.errors import InputError
from mengzi_mt.models.pruned import units_of
from mengzi_mt.models.t5 import build_model, load_model, parameter_count
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.checkpoint import save_checkpoint
from mengzi_mt.training.saving import FINAL

SAMPLE = DataSource("sample")


@pytest.fixture(scope="module")
def start(tmp_path_factory, tokenizer_dir):
    """A checkpoint of a two-layer T5."""
    from mengzi_mt.models import t5
    from mengzi_mt.models.shapes import Shape

    folder = tmp_path_factory.mktemp("start") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(t5.SHAPES, "tiny", Shape(32, 8, 64, 2, 4, 2_400, tied=True))
        save_checkpoint(folder, build_model("tiny", 2_400), load_tokenizer(tokenizer_dir), {"format": "mengzi-mt/checkpoint/1"})
    (folder / "spiece.model").write_bytes((tokenizer_dir / "spiece.model").read_bytes())
    return folder


@pytest.fixture
def make_recipe(start, tmp_path):
    """A recipe of a few steps, with what is to go: ``make_recipe(units={…})``."""

    def make(**changes):
        raw = {
            "name": "tiny",
            "output": str(tmp_path / "run"),
            "model": {"init": str(start)},
            "data": {"source": "sample", "validation_rows": 3},
            "mixture": {"tasks": ["lcqmc", "finre"], "strategy": "equal"},
            "lengths": {"max_input": 96, "max_target": 24},
            "training": {"steps": 2, "batch": 4, "device": "cpu", "workers": 0, "log_every": 1},
            "tracking": {"progress": "none"},
            "score_steps": 2,
        }
        return PruneRecipe.model_validate({**raw, **changes})

    return make


def report(folder):
    return json.loads((folder / "pruning.json").read_text(encoding="utf-8"))


@pytest.fixture
def stages_made(monkeypatch):
    """Counts what is written and trained."""
    made = []
    save, train = pruning.save_checkpoint, pruning.train
    monkeypatch.setattr(pruning, "save_checkpoint", lambda folder, *a, **k: (made.append(folder.name), save(folder, *a, **k))[1])
    monkeypatch.setattr(pruning, "train", lambda run, **k: (made.append(run.recipe.run_dir.name), train(run, **k))[1])
    return made


def test_everything_goes_in_its_order_and_what_is_done_is_not_done_again(make_recipe, start, stages_made, tmp_path):
    recipe = make_recipe(
        vocabulary={"examples": 40}, layers={"decoder": 1}, teacher={}, units={"heads": 0.5, "neurons": 0.5, "rounds": 2}
    )
    final = prune(recipe, SAMPLE)
    order = ["vocabulary", "layers", "layers-training", "round-1", "round-1-training", "round-2", "round-2-training", "final"]
    assert stages_made == order
    told, small = report(final), load_model(final)
    assert [stage["stage"] for stage in told["stages"]] == ["vocabulary", "layers", "round-1", "round-2"]
    assert told["parameters"]["before"]["all"] == parameter_count(load_model(start))
    assert told["parameters"]["after"]["all"] == parameter_count(small) == told["stages"][-1]["parameters"][1]
    assert {one.name: one.count for one in units_of(small)} == {name: now for name, (_, now) in told["stages"][-1]["units"].items()}
    heads = [one.count for one in units_of(small) if one.kind == "heads"]
    assert sum(heads) == round(0.5 * 4 * len(heads))
    assert len(small.decoder.block) == 1 and len(told["stages"][1]["scores"]["decoder"]) == 2
    assert small.config.vocab_size == len(load_tokenizer(final)) == told["stages"][0]["pieces"][1] < 2_400
    assert told["stages"][0]["agreement"]["validation examples"]["texts"] == 6
    assert (final / "spiece.model").is_file()
    for name in ("round-1", "final"):  # as if the run had been killed before these were written
        for path in sorted((tmp_path / "run" / name).rglob("*"), reverse=True):
            path.unlink()
    stages_made.clear()
    again = prune(recipe, SAMPLE)
    assert stages_made == ["round-1", "final"]
    assert [stage["stage"] for stage in report(again)["stages"]] == [stage["stage"] for stage in told["stages"]]
    stages_made.clear()
    assert prune(recipe, SAMPLE) == final and not stages_made
    with pytest.raises(InputError, match=r"another recipe: .*heads: 0\.5"):
        prune(recipe.model_copy(update={"units": recipe.units.model_copy(update={"heads": 0.25})}), SAMPLE)


def test_a_plain_result_loads_in_transformers_and_goes_on_training(make_recipe, tmp_path):
    final = prune(make_recipe(units={"parameters": 110_000, "selection": "alike"}), SAMPLE)
    assert report(final)["plain"] is True
    small, theirs = load_model(final), AutoModelForSeq2SeqLM.from_pretrained(final)
    assert parameter_count(small) <= 110_000
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        torch.testing.assert_close(*(one.eval()(input_ids=ids, labels=ids).logits for one in (small, theirs)))
    run = make_recipe(units={"heads": 0.3}, output=str(tmp_path / "again"), model={"init": str(final)})
    assert parameter_count(load_model(prune(run, SAMPLE))) < parameter_count(small)


def test_the_ticket_is_drawn_when_the_mask_stands_still(make_recipe, tmp_path):
    slimming = {"steps": 30, "look_every": 2, "window": 2, "threshold": 0.5, "penalty": 0.01}
    final = prune(make_recipe(units={"method": "slimming", "heads": 0.5, "neurons": 0.25}, slimming=slimming), SAMPLE)
    (stage,) = report(final)["stages"]
    looks = stage["distances"]
    assert looks[0][1] is None and max(distance for _, distance in looks[-2:]) <= 0.5
    assert looks[-1][0] < 30  # before the last step
    assert (final / "masks.svg").read_text().startswith("<svg")
    records = [json.loads(line) for line in (tmp_path / "run" / "search" / "metrics.jsonl").read_text().splitlines()]
    scores = [record["scores"]["mask_distance"] for record in records if "scores" in record]
    assert scores[0] == 1 and scores[-1] <= 0.5
    assert all("penalty" in json.dumps(record) for record in records if "loss" in record)
    kept = sum(len(units) for name, units in stage["kept"].items() if "DenseReluDense" not in name)
    assert kept == 12 and sum(one.count for one in units_of(load_model(final)) if one.kind == "heads") == 12


def test_a_signal_stops_the_training_and_the_same_command_goes_on(make_recipe, monkeypatch, tmp_path):
    recipe = make_recipe(units={"heads": 0.25}, training={**make_recipe(units={"heads": 0.5}).training.model_dump(), "steps": 4})
    whole = prune(recipe.model_copy(update={"output": str(tmp_path / "whole")}), SAMPLE)
    from mengzi_mt.training import loop

    steps = []

    def signalled(*arguments):
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return accumulate(*arguments)

    accumulate = loop.accumulate
    monkeypatch.setattr(loop, "accumulate", signalled)
    with pytest.raises(SystemExit):
        prune(recipe, SAMPLE)
    assert (tmp_path / "run" / "round-1-training" / "step-0000002").is_dir()
    final = prune(recipe, SAMPLE)
    assert len(steps) == 4
    for mine, theirs in zip(load_model(final).parameters(), load_model(whole).parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing is to go"),
        ({"units": {"heads": 1.0}}, "less than 1"),
        ({"units": {"heads": 0.5, "parameters": 10}}, "give the shares that go"),
        ({"units": {"heads": 0.5, "method": "slimming", "rounds": 2}}, "one ticket"),
        ({"units": {"heads": 0.5}, "model": {"shape": "micro", "tokenizer": "t"}}, "set model.init"),
        ({"layers": {"encoder": 0}}, "at least one layer stays"),
        ({"layers": {}}, "say which layers stay"),
        ({"vocabulary": {"examples": 0}}, "no text to count"),
        ({"units": {"heads": 0.5}, "training": {"steps": 1, "layout": "packed"}}, "layout: flat"),
    ],
)
def test_bad_recipes_are_refused(make_recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(**changes)


def test_layers_that_are_not_there_are_refused(make_recipe):
    with pytest.raises(InputError, match="only 2 layers"):
        prune(make_recipe(layers={"encoder": 3}), SAMPLE)


def test_the_command_prunes_and_the_shipped_recipe_is_valid(make_recipe, start, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    raw = make_recipe(layers={"encoder": [1]}).model_dump(mode="json")
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    done = CliRunner().invoke(app, ["compress", "prune", str(recipe), "training.steps=1"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == str(tmp_path / "run" / FINAL)
    assert len(load_model(tmp_path / "run" / FINAL).encoder.block) == 1
    assert load_prune_recipe("prune-mini").units.shares == {"heads": 0.4, "neurons": 0.4}
    printed = CliRunner().invoke(app, ["compress", "prune", "prune-mini", "--print-config"])
    assert yaml.safe_load(printed.output)["units"]["selection"] == "global"
