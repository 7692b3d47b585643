import json

import pytest
import yaml


@pytest.fixture
def recipe(tmp_path, tokenizer_dir):
    """A recipe of two steps on the bundled sample of one task."""
    values = {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "data": {"source": "sample", "validation_rows": 0},
        "model": {"shape": "micro", "tokenizer": str(tokenizer_dir)},
        "mixture": {"tasks": ["lcqmc"]},
        "training": {"steps": 2, "batch": 4},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_print_config_shows_the_whole_resolved_recipe(command, recipe):
    shown = command("train", recipe, "--print-config", "training.steps=9", "optimiser.learning_rate=1e-3")
    resolved = yaml.safe_load(shown.out)
    assert shown.code == 0
    assert (resolved["training"]["steps"], resolved["optimiser"]["learning_rate"]) == (9, 1e-3)
    assert {"data", "model", "mixture", "lengths", "optimiser", "training"} <= set(resolved)


def test_a_shipped_recipe_is_found_by_name(command):
    assert yaml.safe_load(command("train", "demo", "--print-config").out)["name"] == "demo"


def test_training_ends_with_a_checkpoint(command, recipe, tmp_path):
    shown = command("train", recipe)
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[-1] == str(tmp_path / "run/final")
    assert (tmp_path / "run/final/model.safetensors").is_file()


TASK = """\
name: tea_reviews
version: 1
title: {zh: 茶叶评价, en: Tea reviews}
category: sentiment
role: train
licence: {name: CC0, research_only: false, source: written for this test}
source:
  path: tea
  splits: {train: [reviews.jsonl]}
reader: {format: jsonl}
fields:
  review: {type: string, from: 评价, shrink: true}
  label: {type: label, from: 星级}
labels: {good: 好喝, bad: 难喝}
metrics: [accuracy]
group_by: [review]
"""
TEMPLATES = """\
dataset: tea_reviews
templates:
  0c8f4c0e-6a3e-4f0b-9c44-2d4f6f2a5b11: !Template
    answer_choices: '@labels'
    id: 0c8f4c0e-6a3e-4f0b-9c44-2d4f6f2a5b11
    jinja: |-
      买家这样评价这款茶：{{ review }}
      他觉得这茶{{ answer_choices | join('还是') }}？|||{{ answer_choices[label] }}
    metadata: !TemplateMetadata
      choices_in_prompt: true
      languages: [zh]
      metrics: [Accuracy]
      original_task: true
    name: how_does_it_taste
    reference: ''
"""


def test_a_dataset_of_ones_own_is_two_yaml_files(command, recipe, tmp_path, monkeypatch):
    """Steps of docs/add-a-dataset.md: a task and its templates outside the package, checked, rendered and trained on."""
    own = tmp_path / "mine"
    for name, text in {"tasks/tea_reviews/task.yaml": TASK, "prompts/tea_reviews/templates.yaml": TEMPLATES}.items():
        (own / name).parent.mkdir(parents=True)
        (own / name).write_text(text, encoding="utf-8")
    data = tmp_path / "data/tea"
    data.mkdir(parents=True)
    rows = [{"评价": f"第{n}泡{'清香回甘' if n % 2 else '又苦又涩'}", "星级": "good" if n % 2 else "bad"} for n in range(120)]
    (data / "reviews.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setenv("MENGZI_MT_REGISTRY", str(own))

    listed = {task["name"]: task for task in json.loads(command("tasks", "list", "--json").out)}
    assert listed["tea_reviews"]["templates"] == 1
    checked = command("prompts", "check", "tea_reviews", "--data-dir", data.parent, "--output", tmp_path / "report.json")
    assert checked.code == 0, checked.err
    (entry,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (entry["counts"]["read"], entry["templates"][0]["rendered"]) == (120, 120)
    assert "他觉得这茶好喝还是难喝？" in command("prompts", "render", "tea_reviews", "--data-dir", data.parent).out

    overrides = ("mixture.tasks=[tea_reviews]", "data.source=files", "training.steps=3")
    trained = command("train", recipe, "--data-dir", data.parent, *overrides)
    assert trained.code == 0, trained.err
    manifest = json.loads((tmp_path / "run/final/mengzi_mt.json").read_text(encoding="utf-8"))
    assert manifest["step"] == 3
    assert manifest["data"]["tea_reviews"]["rows"] + len(rows) // 20 >= 108  # the rest was cut off for validation, by hash
    assert manifest["data"]["tea_reviews"]["licence"] == "CC0"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stpes=3", "Did you mean 'steps'"),
        ("trainin.steps=3", "Did you mean 'training'"),
        ("training.precision=float16", "float16 is refused"),
        ("training.precision=fp16", "float16 is refused"),
        ("training.steps", "An override is written key.path=value"),
        ("training.steps=many", "key training.steps"),
        ("name.first=x", "'name' is a value, not a section"),
        ("training.steps=[1", "not valid YAML"),
        ("mixture.tasks=[lcqmcc]", "Did you mean 'lcqmc'"),
        ("mixture.tasks=[tnews]", "trains on zero-shot tasks: tnews"),
        ("data.source=files", "No data folder was given"),
        ("training.device=warp", "The device 'warp' cannot be used"),
    ],
)
def test_a_wrong_override_is_one_paragraph(command, recipe, override, message):
    assert message in command("train", recipe, override).refused()


def test_an_unknown_recipe_names_the_nearest(command):
    assert "Did you mean 'demo'" in command("train", "demoo").refused()


def test_a_missing_data_folder(command, recipe, tmp_path):
    message = command("train", recipe, "--data", "files", "--data-dir", tmp_path / "none").refused()
    assert "The data folder does not exist" in message


def test_a_broken_line_names_file_and_line(command, recipe, tmp_path):
    folder = tmp_path / "data/lcqmc"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("甲\t乙\t1\n甲\t乙\n", encoding="utf-8")
    message = command("train", recipe, "--data", "files", "--data-dir", tmp_path / "data").refused()
    assert f"{folder / 'train.txt'}, line 2" in message


def test_a_half_written_checkpoint_is_refused_as_a_start(command, recipe, checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    message = command("train", recipe, "model.shape=null", "model.tokenizer=null", f"model.init={checkpoint}").refused()
    assert "incomplete or damaged" in message
