import pytest

from mengzi_mt.data.examples import bound_templates, render_example, render_rows, select_templates, usable
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template import Template, TemplateMetadata
from mengzi_mt.tasks.registry import get_task, task_names
from mengzi_mt.tasks.rows import Row

TASK = get_task("lcqmc")
ROW = Row("f:1", {"sentence1": "甲", "sentence2": "乙", "label": 1})


def template(jinja, choices=None, **extra):
    return Template("1", "t", jinja, "lcqmc", choices, metadata=TemplateMetadata(extra=extra), shrink={"sentence1": "tail"})


def test_example_carries_text_choices_spans_and_origin():
    example = render_example(TASK, template("问{{ sentence1 }}|||{{ answer_choices[label] }}", "否 ||| 是"), ROW, weight=2.0)
    assert (example.inputs, example.targets, example.choices, example.shrinkable) == ("问甲", "是", ("否", "是"), ((1, 2, "tail"),))
    assert (example.weight, example.task, example.template, example.row_id) == (2.0, "lcqmc", "t", "f:1")
    assert example.gold == 1


def test_gold_is_unknown_without_target_or_choices():
    with_choices = template("{{ sentence1 }}|||{{ answer_choices[label] }}", "否 ||| 是")
    unlabelled = render_example(TASK, with_choices, Row("f:1", {"sentence1": "甲"}), with_target=False)
    assert (unlabelled.targets, unlabelled.gold) == ("", None)
    assert render_example(TASK, template("{{ sentence1 }}|||x"), ROW).gold is None


def test_absent_optional_field_reads_as_empty_text():
    task = get_task("tnews")
    example = render_example(task, template("{{ sentence }}[{{ keywords }}]|||x"), Row("f:1", {"sentence": "甲", "label": 0}))
    assert example.inputs == "甲[]"


def test_error_names_template_and_row():
    with pytest.raises(InputError) as caught:
        render_example(TASK, template("{{ sentence3 }}|||x"), ROW)
    assert "'sentence3' is undefined" in caught.value.what
    assert caught.value.where.endswith("template 't', row f:1")


def test_rows_that_a_template_skips_are_not_rendered():
    rows = [ROW, Row("f:2", {**ROW.values, "label": 0})]
    assert [e.row_id for e in render_rows(TASK, template("x|||y", skip_if="label == 0"), rows)] == ["f:1"]
    assert usable(template("x|||y"), ROW)


@pytest.mark.parametrize("skip_if", ["label <", "missing"])
def test_failing_skip_if_names_template_and_row(skip_if):
    with pytest.raises(InputError, match="skip_if fails on row f:1") as caught:
        usable(template("x|||y", skip_if=skip_if), ROW)
    assert "template 't'" in caught.value.where


def test_unknown_template_names_the_nearest():
    name = bound_templates(TASK).templates[0].name
    assert select_templates(TASK, [name])[0].name == name
    with pytest.raises(InputError) as caught:
        select_templates(TASK, [name[:-1]])
    assert repr(name) in caught.value.fix


@pytest.mark.parametrize("name", task_names())
def test_evaluation_uses_templates_of_the_intended_use_that_skip_no_rows(name):
    chosen = select_templates(get_task(name), None, for_evaluation=True)
    assert chosen
    assert all(t.metadata.original_task and not t.skip_if for t in chosen)


def test_shipped_templates_hold_the_tasks_label_words():
    assert all("@" not in (t.answer_choices or "") for name in task_names() for t in bound_templates(get_task(name)))
