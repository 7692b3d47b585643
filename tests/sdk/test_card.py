from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mengzi_mt.cli.main import app
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.provenance import weights_hash
from mengzi_mt.resources import resource_dir
from mengzi_mt.sdk.card import write_card
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.training.checkpoint import verify_checkpoint


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "a-model"
    shutil.copytree(resource_dir("models") / "mengzi-mt-mini", folder)
    return folder


@pytest.fixture
def results(model, evaluated) -> Path:
    file = evaluated("a-model", tasks=("eprstmt", "tnews"), data="sample") / "results.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    found["model"]["hash"] = weights_hash(model)
    file.write_text(json.dumps(found), encoding="utf-8")
    return file


def test_front_matter_tasks_terms_and_cost(model):
    card = write_card(model)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["language"] == "zh" and front["pipeline_tag"] == "text2text-generation"
    for task in TASKS.values():
        assert f"| `{task.name}` | {task.title} |" in card
    manifest = json.loads((model / "mengzi_mt.json").read_text(encoding="utf-8"))
    assert "**For research only**" in card and "so is this model" in card
    assert f"tokens: {manifest['counters']['tokens']:,}" in card
    assert f"{6 * manifest['parameters'] * manifest['counters']['tokens']:.1e} FLOPs" in card
    assert "## Scores" not in card


def test_scores_are_those_of_the_results(model, results):
    found = json.loads(results.read_text(encoding="utf-8"))
    card = write_card(model, [results])
    for task in found["tasks"]:
        row = next(line for line in card.splitlines() if line.startswith(f"| {task['task']}"))
        assert f"| {task['rows']} | {len(task['templates'])} |" in row
        if task["score"] is not None:
            assert f"{100 * task['score']:.1f}" in row and f"{100 * task['chance']:.1f}" in row
    assert "Bundled samples, no benchmark" in card


def test_results_of_other_weights_are_refused(model, results):
    found = json.loads(results.read_text(encoding="utf-8"))
    found["model"]["hash"] = "0" * 16
    results.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(InputError, match="other weights"):
        write_card(model, [results])


def test_notes_are_put_in(model, tmp_path):
    notes = tmp_path / "notes.md"
    notes.write_text("## Seen\n\n它把“还行”判作负面。\n", encoding="utf-8")
    card = write_card(model, notes=notes)
    assert "## Seen\n\n它把“还行”判作负面。\n\n## Limits" in card
    with pytest.raises(InputError, match="do not read"):
        write_card(model, notes=tmp_path / "none.md")


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(InputError, match="nothing is known of its training"):
        write_card(tmp_path)


def test_the_command_writes_a_card_and_the_checkpoint_stays_whole(model):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["card", str(model), "--write"])
    assert done.exit_code == 0, done.output
    assert (model / "README.md").read_text(encoding="utf-8") == write_card(model)
    verify_checkpoint(model)


def test_every_template_has_a_line(model, results):
    found = json.loads(results.read_text(encoding="utf-8"))
    lines = write_card(model, [results]).splitlines()
    for task in found["tasks"]:
        for template in task["templates"]:
            assert sum(line.startswith(f"| {task['task']} | `{template['template']}` | ") for line in lines) == 1


def test_the_name_is_the_folder_s_or_the_recipe_s(model):
    assert "\n# a-model\n" in write_card(model)
    final = model.rename(model.with_name("final"))
    recipe = json.loads((final / "mengzi_mt.json").read_text(encoding="utf-8"))["recipe"]["name"]
    assert f"\n# {recipe}\n" in write_card(final)


def test_cost_of_the_runs(model, tmp_path):
    run = tmp_path / "a-run"
    run.mkdir()
    records = [
        {"step": 10, "loss": 5.0, "tokens_seen": 900, "elapsed": 120.0, "seconds": 120.0, "flops_per_second": 1e9},
        *({"step": step, "validation_loss": 40 / step} for step in range(10, 310, 10)),
        {"step": 300, "loss": 2.0, "tokens_seen": 27_000, "elapsed": 600.0, "seconds": 480.0, "flops_per_second": 2e9},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    card = write_card(model, runs=[run])
    assert "| a-run | 300 | 27,000 | 1.1e+12 | 10 |" in card  # 120 s at 1e9 and 480 s at 2e9
    steps, losses = (next(line for line in card.splitlines() if line.startswith(f"| {key} ")) for key in ("step", "loss"))
    assert steps.endswith(" 270 | 300 |") and losses.endswith(f" {40 / 270:.3f} | {40 / 300:.3f} |")
    assert len(steps.split("|")) == 10 + 3  # every third of thirty, and the label
    with pytest.raises(InputError, match="cannot be read"):
        write_card(model, runs=[tmp_path / "no-run"])
