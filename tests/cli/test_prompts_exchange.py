import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks import promptsource_parity
from mengzi_mt.data.examples import bound_templates, usable
from mengzi_mt.prompts.template_set import load_templates, read_template_file
from mengzi_mt.resources import resource_dir
from mengzi_mt.tasks.registry import get_task, task_names
from mengzi_mt.tasks.rows import DataSource, available_splits, load_rows

FOREIGN = """\
dataset: super_toy
subset: Zh-1
templates:
  a1: !Template
    answer_choices: 差 ||| 好
    id: a1
    jinja: "{{ sentence }}\\n好吗？ ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      metrics: [Accuracy]
      original_task: true
      their_key: {x: [1, null]}
    name: ask
    reference: 某人
    task_template: true
  b2: !Template
    answer_choices: null
    id: b2
    jinja: '{% if sentence %}{{ sentence }}|||{{ more }}{% endif %}'
    metadata: !TemplateMetadata {}
    name: branch
    reference: ''
"""
TASKS = [name for name in task_names() if (resource_dir("prompts") / name).is_dir()]


@pytest.fixture
def registry(tmp_path, monkeypatch):
    folder = tmp_path / "registry"
    (folder / "prompts").mkdir(parents=True)
    monkeypatch.setenv("MENGZI_MT_REGISTRY", str(folder))
    return folder / "prompts"


@pytest.fixture
def foreign(tmp_path):
    path = tmp_path / "foreign.yaml"
    path.write_text(FOREIGN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("promptsource.templates", reason="promptsource 0.2.3 is not installed (docs/promptsource.md)")
    return promptsource_parity.import_reference()


def test_import_writes_the_file_and_says_what_it_left_out_and_what_needs_rewriting(command, registry, foreign):
    shown = command("prompts", "import", foreign)
    assert shown.code == 0
    written = read_template_file(registry / "super_toy_zh_1" / "templates.yaml")
    assert (written.task, written.subset) == ("super_toy_zh_1", None)
    assert written.templates == tuple(replace(t, task="super_toy_zh_1") for t in read_template_file(foreign))
    assert written["ask"].metadata.extra == {"their_key": {"x": [1, None]}}
    for said in (
        "super_toy/Zh-1: 2 templates",
        "task_template",
        "0 stand at its top level",
        "wrote 2 of 2",
        "label, more, sentence",
    ):
        assert said in shown.out


def test_import_as_json_for_a_task_that_exists(command, registry, foreign):
    report = json.loads(command("prompts", "import", foreign, "--task", "eprstmt", "--output", "x/y.yaml", "--json").out)
    assert (report["task"], report["task_exists"], report["keys_left_out"]) == ("eprstmt", True, {"task_template": 1})
    first, second = report["templates"]
    assert (first["renders"], first["reasons"], first["written"]) == ("strict", [], True)
    assert second["renders"] == "compat"
    assert any("'more', which is no field of the task" in reason for reason in second["reasons"])
    assert read_template_file(Path("x/y.yaml")).task == "eprstmt"
    assert list(registry.iterdir()) == []


def test_strict_only_leaves_out_what_strict_rendering_refuses(command, registry, foreign):
    shown = command("prompts", "import", foreign, "--task", "toy", "--strict-only")
    assert "(left out)" in shown.out
    assert "wrote 1 of 2" in shown.out
    assert [template.name for template in load_templates("toy")] == ["ask"]
    foreign.write_text(FOREIGN.replace("{{ sentence }}\\n好吗？ |||", "{% if a %}|||{% endif %}"), encoding="utf-8")
    assert "refuses every template" in command("prompts", "import", foreign, "--strict-only").refused()


def test_a_file_is_overwritten_by_force_alone_and_kept_by_append(command, registry, foreign, tmp_path):
    assert command("prompts", "import", foreign, "--task", "toy").code == 0
    assert "exists already" in command("prompts", "import", foreign, "--task", "toy").refused()
    assert "the id 'a1'" in command("prompts", "import", foreign, "--task", "toy", "--append").refused()
    other = tmp_path / "other.yaml"
    other.write_text(FOREIGN.replace("a1", "c3").replace("b2", "d4"), encoding="utf-8")
    assert "the name 'ask'" in command("prompts", "import", other, "--task", "toy", "--append").refused()
    other.write_text(other.read_text(encoding="utf-8").replace("name: ", "name: other_"), encoding="utf-8")
    assert command("prompts", "import", other, "--task", "toy", "--append").code == 0
    assert [t.name for t in load_templates("toy")] == ["ask", "branch", "other_ask", "other_branch"]
    assert {template.task for template in load_templates("toy")} == {"toy"}
    assert command("prompts", "import", other, "--task", "toy", "--force").code == 0
    assert len(load_templates("toy")) == 2
    assert "choose one of the two" in command("prompts", "import", other, "--append", "--force").refused()


def test_what_was_imported_is_exported_and_read_again_without_loss(command, registry, foreign, tmp_path):
    command("prompts", "import", foreign, "--task", "toy")
    once = command("prompts", "export", "toy").out
    again = tmp_path / "again.yaml"
    assert command("prompts", "export", "toy", "--output", again).code == 0
    assert again.read_text(encoding="utf-8") == once
    assert "exists already" in command("prompts", "export", "toy", "--output", again).refused()
    assert command("prompts", "import", again, "--force").code == 0
    assert command("prompts", "export", "toy").out == once
    assert read_template_file(again) == load_templates("toy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "nowhere.yaml"), "does not exist"),
        (("import", "foreign.yaml", "--task", "../x"), "no task name"),
        (("import", "foreign.yaml", "--from", "hub"), "use file or promptsource"),
        (("import", "foreign.yaml", "--output", "foreign.yaml/x"), "cannot be written"),
        (("export", "tnew"), "Did you mean 'tnews'"),
    ],
)
def test_wrong_arguments_are_one_paragraph(command, registry, foreign, arguments, message):
    assert message in command("prompts", *arguments).refused()


def test_a_file_without_templates_is_refused(command, registry, tmp_path):
    (tmp_path / "empty.yaml").write_text("dataset: x\ntemplates: {}\n", encoding="utf-8")
    assert "holds no templates" in command("prompts", "import", "empty.yaml").refused()


def test_import_from_the_package_says_how_to_install_it(command, registry, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = command("prompts", "import", "super_glue/boolq", "--from", "promptsource").refused()
    assert "pip install --no-deps --ignore-requires-python promptsource==0.2.3" in said


def test_import_from_the_installed_package(command, registry, reference):
    assert command("prompts", "import", "super_glue/boolq", "--from", "promptsource").code == 0
    assert len(load_templates("super_glue_boolq")) == 10
    said = command("prompts", "import", "super_glue", "--from", "promptsource").refused()
    assert "super_glue/" in said
    assert "'ag_news'" in command("prompts", "import", "ag_new", "--from", "promptsource").refused()


@pytest.mark.parametrize("name", TASKS)
def test_promptsource_reads_an_exported_task_and_renders_the_same_text(command, reference, name):
    theirs = yaml.load(command("prompts", "export", name).out, Loader=yaml.FullLoader)["templates"]
    task, source = get_task(name), DataSource("sample")
    rows = [row for split in available_splits(task, source) for row in load_rows(task, split, source)]
    labelled = [row for row in rows if not task.gold_fields or task.gold_fields & set(row.values)]
    optional = {key: "" for key, spec in task.fields.items() if spec.optional}
    for template in bound_templates(task):
        assert not (theirs[template.id].answer_choices or "").startswith("@")
        if re.search(r"\|\s*(choice|random|highlight)\b", template.jinja):
            continue  # theirs draws unseeded and colours
        for row in [row for row in labelled if usable(template, row)][:2]:
            values = {**optional, **row.values}
            ours = template.render(values, row.row_id)
            assert theirs[template.id].apply(values, truncate=False) == [ours.inputs, ours.targets], template.name
            choices = theirs[template.id].get_answer_choices_list(values)
            assert choices == (None if ours.choices is None else list(ours.choices)), template.name
