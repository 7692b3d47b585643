import json

import pytest

from mengzi_mt.prompts.template_set import load_templates
from mengzi_mt.tasks.registry import task_names


def test_list_as_json(command):
    shown = command("prompts", "list", "--json")
    templates = json.loads(shown.out)
    assert shown.code == 0
    assert {template["task"] for template in templates} == set(task_names())
    for template in templates:
        assert {"task", "name", "choices"} <= set(template)
        assert isinstance(template["choices"], bool)


def test_list_of_one_task(command):
    names = [template["name"] for template in json.loads(command("prompts", "list", "tnews", "--json").out)]
    assert names == [template.name for template in load_templates("tnews")]
    assert all(name in command("prompts", "list", "tnews").out for name in names)


def test_render_shows_input_target_and_choices(command):
    name = load_templates("eprstmt").templates[0].name
    shown = command("prompts", "render", "eprstmt", "--template", name, "--rows", "2")
    assert shown.code == 0
    assert shown.out.count(f"── eprstmt / {name} / sample.jsonl:") == 2
    assert shown.out.count("→ ") == shown.out.count("choices: ") == 2


def test_render_without_a_target_on_an_unlabelled_split(command, tmp_path):
    folder = tmp_path / "data/fewclue/eprstmt"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text('{"id": 1, "sentence": "很好用"}\n', encoding="utf-8")
    shown = command("prompts", "render", "eprstmt", "--data-dir", tmp_path / "data", "--split", "test")
    assert shown.code == 0
    assert "很好用" in shown.out
    assert "→ ?" in shown.out
    assert "(needs the answer" in shown.out  # the template that writes a review of a given polarity
    assert "None" not in shown.out


def test_check_of_one_task(command):
    shown = command("prompts", "check", "tnews", "--json")
    assert shown.code == 0
    assert [line for line in json.loads(shown.out) if line["severity"] == "error"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "tnew"), "Did you mean 'tnews'"),
        (("render", "tnew"), "Did you mean 'tnews'"),
        (("render", "tnews", "--template", "no_such_template"), "no_such_template"),
        (("render", "tnews", "--data", "internet"), "use files, sample or hub"),
        (("render", "tnews", "--data", "files"), "No data folder was given"),
        (("check", "tnew"), "Did you mean 'tnews'"),
    ],
)
def test_wrong_names_are_one_paragraph(command, arguments, message):
    assert message in command("prompts", *arguments).refused()
