import pytest

from mengzi_mt.errors import InputError
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


@pytest.mark.parametrize("shrink", [{"text": "middel"}, "text", 3])
def test_wrong_shrink_is_refused(shrink):
    with pytest.raises(InputError, match="`shrink` in the metadata"):
        template(None, shrink=shrink).bound_to({})


def test_label_lists_are_assigned_in_front():
    sets = {"labels": ("差", "好'评"), "labels.formal": ("差评", "好评"), "intent": ("问", "答")}
    bound = Template("1", "t", "{{ labels | join }}{{ labels_formal[0] }}{{ labels_intent[1] }}|||x").bound_to(sets)
    assert bound.render({}).inputs == "差好'评差评答"
    assert bound.jinja.startswith("{% set labels = ['差', '好\\'评'] %}")
    own = Template("1", "t", "{% set labels = ['x'] %}{{ labels[0] }}|||x").bound_to(sets)
    assert own.render({}).inputs == "x"


def test_what_is_inserted_can_be_marked():
    marked = Template("1", "t", "问{{ a }}：{{ answer_choices | join('/') }}|||x", "toy", "是 ||| 否").marking_inserted()
    prompt = marked.render({"a": "甲"})
    assert [prompt.inputs[a:b] for a, b, _ in prompt.shrinkable] == ["甲", "是/否"]
