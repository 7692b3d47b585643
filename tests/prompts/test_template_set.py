import re

import pytest
import yaml

from mengzi_mt.conditions import compile_condition
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template_set import dump_templates, load_templates, read_template_file
from mengzi_mt.resources import resource_dir
from mengzi_mt.tasks.registry import get_task, task_names
from mengzi_mt.tasks.rows import DataSource, load_rows

TEMPLATES = """\
dataset: toy
subset: zh
templates:
  a1: !Template
    answer_choices: '@labels'
    id: a1
    jinja: |-
      评论：{{ text }}
      好吗？|||{{ answer_choices[label] }}
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [zh]
      metrics: [Accuracy]
      original_task: true
      skip_if: not text
      shrink: [text]
      their_key: {x: [1, null]}
    name: ask
    reference: 某人
  b2: !Template
    answer_choices: null
    id: b2
    jinja: '{{ text }} |||  尾部空格 '
    metadata: !TemplateMetadata {}
    name: plain
    reference: ''
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "toy" / "templates.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_file_reads_and_writes_without_loss(write):
    loaded = read_template_file(write(TEMPLATES))
    text = dump_templates(loaded)
    assert read_template_file(write(text)) == loaded
    assert dump_templates(read_template_file(write(text))) == text
    assert loaded["ask"].metadata.extra == {"skip_if": "not text", "shrink": ["text"], "their_key": {"x": [1, None]}}


def test_written_yaml_keeps_chinese_block_text_and_both_tags(write):
    text = dump_templates(read_template_file(write(TEMPLATES)))
    assert "评论：{{ text }}\n" in text
    assert "\\u" not in text
    assert text.count("!Template\n") == 2
    assert text.count("!TemplateMetadata") == 2
    assert text.startswith("dataset: toy\nsubset: zh\n")


@pytest.mark.parametrize("name", task_names())
def test_shipped_templates_read_and_write_without_loss(write, name):
    loaded = load_templates(name)
    assert read_template_file(write(dump_templates(loaded))) == loaded


def test_binding_writes_the_label_words_out(write):
    path = write(TEMPLATES)
    bound = load_templates("toy", {"labels": ("差", "好")}, {"text": "tail"}, root=path.parent.parent)
    assert bound["ask"].answer_choices == "差 ||| 好"
    assert bound["plain"].shrink == {"text": "tail"}
    assert "@labels" not in dump_templates(bound)
    assert load_templates("toy", root=path.parent.parent)["ask"].answer_choices == "@labels"


def test_unknown_label_words_name_template_and_nearest_set(write):
    path = write(TEMPLATES.replace("@labels", "@labels.reviw"))
    with pytest.raises(InputError) as caught:
        load_templates("toy", {"labels": ("差",), "labels.review": ("好",)}, root=path.parent.parent)
    assert "@labels.reviw" in caught.value.what
    assert "template 'ask'" in caught.value.where
    assert "'labels.review'" in caught.value.fix


@pytest.mark.parametrize(
    ("old", "new", "said", "where"),
    [
        ("    name: ask\n", "    name: ask\n    name: ask2\n", "'name' stands twice", "line 19"),
        ("  b2: !Template", "  a1: !Template", "'a1' stands twice", "line 20"),
        ("!Template\n    answer_choices: null", "!!python/object:os.x\n    a: null", "python/object", "line 20"),
        ("!Template\n    answer_choices: null", "\n    answer_choices: null", "needs the tag !Template", "template b2"),
        ("    name: plain\n", "", "no 'name'", "template b2"),
        ("    id: b2\n", "    id: b3\n", "differs from its key", "template b2"),
        ("name: plain", "name: ask", "Two templates are called 'ask'", "templates.yaml"),
        ("metadata: !TemplateMetadata {}", "metadata: 3", "no mapping", "template b2"),
        ("templates:\n", "template:\n", "no mapping `templates`", "templates.yaml"),
    ],
)
def test_bad_file_names_line_or_template(write, old, new, said, where):
    assert old in TEMPLATES
    with pytest.raises(InputError) as caught:
        read_template_file(write(TEMPLATES.replace(old, new)))
    assert said in caught.value.what
    assert where in caught.value.where


def test_template_is_found_by_name_or_id_and_a_near_miss_is_named(write):
    loaded = read_template_file(write(TEMPLATES))
    assert loaded["ask"] is loaded["a1"]
    with pytest.raises(InputError) as caught:
        loaded["plan"]
    assert caught.value.fix == "Did you mean 'plain'?"


def test_content_hash_follows_what_renders_and_nothing_else(write):
    content = read_template_file(write(TEMPLATES)).content_hash()
    assert read_template_file(write(TEMPLATES.replace("某人", "别人"))).content_hash() == content
    assert read_template_file(write(TEMPLATES.replace("好吗", "好么"))).content_hash() != content


def test_task_without_templates_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="has no templates"):
        load_templates("toy", root=tmp_path)


@pytest.mark.parametrize("name", task_names())
def test_shipped_templates_render_as_promptsource_does(name):
    pytest.importorskip("promptsource.templates", reason="promptsource is not installed")
    task = get_task(name)
    bound = load_templates(name, task.label_sets(), task.shrink_fields)
    theirs = yaml.load(dump_templates(bound), Loader=yaml.FullLoader)["templates"]
    rows = load_rows(task, "validation", DataSource("sample"), limit=5)
    for template in bound:
        if re.search(r"\|\s*(choice|highlight)\b", template.jinja):
            continue  # theirs draws unseeded and colours
        for row in rows:
            if template.skip_if and compile_condition(template.skip_if)(row.values):
                continue
            values = {**{key: "" for key, spec in task.fields.items() if spec.optional}, **row.values}
            assert theirs[template.id].apply(values, truncate=False) == template.apply(values), template.name


def test_every_template_folder_belongs_to_a_task():
    assert sorted(path.parent.name for path in resource_dir("prompts").glob("*/templates.yaml")) == task_names()
