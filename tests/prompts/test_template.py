import pytest

from mengzi_mt.prompts.template import Template, TemplateMetadata

LABELS = {"labels": ("差", "好"), "labels.review": ("差评", "好评")}


def template(choices, **extra):
    return Template("1", "t", "{{ text }}|||{{ answer_choices[label] }}", "toy", choices, metadata=TemplateMetadata(extra=extra))


@pytest.mark.parametrize(
    ("choices", "injected"),
    [("@labels", "差 ||| 好"), ("@labels.review", "差评 ||| 好评"), ("是 ||| 否", "是 ||| 否"), (None, None)],
)
def test_label_words_are_injected(choices, injected):
    assert template(choices).bound_to(LABELS).answer_choices == injected


def test_unknown_set_of_label_words_is_a_key_error():
    with pytest.raises(KeyError, match=r"labels\.other"):
        template("@labels.other").bound_to(LABELS)


def test_own_shrink_list_replaces_the_tasks():
    assert template(None).bound_to({}, {"text": "head"}).shrink == {"text": "head"}
    assert template(None, shrink=[]).bound_to({}, {"text": "head"}).shrink == {}


def test_apply_gives_input_and_target():
    assert template("@labels").bound_to(LABELS).apply({"text": " 很好 ", "label": 1}) == ["很好", "好"]


def test_choice_is_seeded_by_row_and_template():
    drawing = Template("1", "t", "{{ ['a', 'b', 'c', 'd'] | choice }}|||x")
    other = Template("2", "t", drawing.jinja)
    first = [drawing.render({}, seed=str(i)).inputs for i in range(30)]
    assert first == [drawing.render({}, seed=str(i)).inputs for i in range(30)]
    assert first != [other.render({}, seed=str(i)).inputs for i in range(30)]


def test_equal_templates_share_one_compiled_form():
    assert template("a ||| b").compiled is template("a ||| b").compiled
