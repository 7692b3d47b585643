import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template import Template

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]))


def render(jinja, values=None, choices=None, shrink=(), **options):
    return Template("1", "t", jinja, "toy", choices, shrink=dict.fromkeys(shrink, "tail")).render(values or {}, **options)


def test_input_target_and_choices_are_stripped():
    prompt = render("\n 问：{{ a }} \n|||\n {{ answer_choices[1] }} \n", {"a": "甲"}, " 是 ||| 否 ")
    assert (prompt.inputs, prompt.targets, prompt.choices) == ("问：甲", "否", ("是", "否"))


def test_choices_may_depend_on_the_row():
    prompt = render("x|||{{ answer_choices[0] }}", {"c": ["甲", "乙"]}, "{{ c | join('|||') }}")
    assert (prompt.choices, prompt.targets) == (("甲", "乙"), "甲")


@given(TEXT, TEXT)
@example("左|||右", "|||")
def test_separator_in_a_field_never_moves_the_split(a, b):
    prompt = render("甲{{ a }}乙|||{{ b }}", {"a": a, "b": b})
    assert (prompt.inputs, prompt.targets) == (f"甲{a}乙", b.strip())


def test_separator_in_a_choice_never_moves_the_split():
    prompt = render("x|||{{ answer_choices[1] }}", {"c": ["甲|||乙", "丙"]}, "{{ c | join('|||') }}")
    assert (prompt.choices, prompt.targets) == (("甲|||乙", "丙"), "丙")


@given(TEXT, TEXT, st.booleans())
@example(" 甲 ", "甲", True)
@example("\ufdd0甲\ufdd1\ufdd1", "乙", False)
def test_shrinkable_span_points_exactly_at_the_fields_text(a, b, twice):
    prompt = render("  “{{ a }}”{{ b }}" + "又{{ a }}" * twice + "|||x", {"a": a, "b": b}, shrink=["a"])
    plain = render("  “{{ a }}”{{ b }}" + "又{{ a }}" * twice + "|||x", {"a": a.replace("\ufdd0", ""), "b": b})
    assert prompt.inputs == plain.inputs
    text = a.replace("\ufdd0", "")
    found = [prompt.inputs[start:end] for start, end, _ in prompt.shrinkable]
    last = [text.rstrip()] if twice else []
    assert found == [piece for piece in [text, *last] if piece]


def test_text_that_strips_away_leaves_no_span():
    assert render("{{ a }}问|||x", {"a": "   "}, shrink=["a"]).shrinkable == ()
    prompt = render("  {{ a }}问|||x", {"a": "  甲乙"}, shrink=["a"])
    assert [prompt.inputs[a:b] for a, b, _ in prompt.shrinkable] == ["甲乙"]


def test_span_covers_a_filtered_field_and_a_loop():
    prompt = render("{% for i in [1, 2] %}{{ a | upper }};{% endfor %}|||x", {"a": "ab"}, shrink=["a"])
    assert (prompt.inputs, prompt.shrinkable) == ("AB;AB;", ((0, 2, "tail"), (3, 5, "tail")))


@pytest.mark.parametrize(
    "jinja",
    [
        "{% set t %}{{ a }}{% endset %}{{ t | length }}{{ t }}|||{{ t }}",
        "{% macro f() %}{{ a }}{% endmacro %}{{ f() | length }}{{ f() }}|||{{ f() }}",
    ],
)
def test_captured_text_is_the_plain_value(jinja):
    prompt = render(jinja, {"a": "甲乙"}, shrink=["a"])
    assert (prompt.inputs, prompt.targets) == ("2甲乙", "甲乙")


@pytest.mark.parametrize(
    "before",
    [
        "{% set w = '正' %}",
        "{% if a %}印{% set w = '正' %}{% else %}{% set w = '反' %}{% endif %}",
        "{% set n = namespace(w='') %}{% for c in ['反', '正'] %}{{ c }}{% set n.w = c %}{% endfor %}{% set w = n.w %}",
        "{% set w %}正{% endset %}",
    ],
)
def test_what_is_assigned_before_the_separator_stays_visible_after_it(before):
    assert render(before + "{{ a }}|||{{ w }}", {"a": 1}).targets == "正"


def test_unlabelled_row_needs_no_target():
    prompt = render("{{ a }}|||{{ answer_choices[label] }}", {"a": "甲"}, "是 ||| 否", with_target=False)
    assert (prompt.inputs, prompt.targets, prompt.choices) == ("甲", None, ("是", "否"))


def test_undefined_name_names_template_and_field():
    with pytest.raises(InputError) as caught:
        render("{{ sentense }}|||x", {"sentence": "甲"})
    assert "'sentense' is undefined" in caught.value.what
    assert caught.value.where == "prompts/toy/templates.yaml, template 't'"
    assert "sentence" in caught.value.fix


@pytest.mark.parametrize(
    ("jinja", "said"),
    [
        ("no separator", "0 separators"),
        ("a|||b|||c", "2 separators"),
        ("{% if a %}a|||b{% endif %}", "0 stand at its top level"),
        ("{% if a %}a|||b{% else %}c|||d{% endif %}", "2 separators"),
        ("{{ a | shorten }}|||x", "No filter named 'shorten'"),
        ("{{ a |||x", "does not parse"),
        ("{% if a %}|||x", "does not parse"),
        ("{% include 'x' %}|||x", "fails on this row"),
        ("{{ ''.__class__.__mro__ }}|||x", "'__class__'"),
        ("{{ 'a' * 10**9 }}|||x", "grow over"),
        ("x|||{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% set s = 'aaaaaaaa' %}" + "{% set s = s ~ s %}" * 40 + "|||x", "grow over"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}|||x", "recurses without end"),
        ("{{ 1 // 0 }}|||x", "fails on this row"),
        ("{{ a + 1 }}|||x", "fails on this row"),
    ],
)
def test_bad_template_is_an_input_error_within_a_second(jinja, said):
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        render(jinja, {"a": "甲"})
    assert said in caught.value.what
    assert "template 't'" in caught.value.where
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("choices", ["{{ 'a' * 10**9 }}", "{{ a | shorten }}", "{{ a", "{{ 1 // 0 }}"])
def test_bad_choices_are_an_input_error(choices):
    with pytest.raises(InputError):
        render("x|||y", {"a": "甲"}, choices)


def test_names_are_every_field_that_the_template_reads():
    compiled = Template("1", "t", "{% set w = a %}{{ w }}|||{{ answer_choices[b] }}", answer_choices="{{ c }} ||| d").compiled
    assert compiled.names == {"a", "b", "c"}


@settings(max_examples=30, deadline=None)
@given(st.text("{}%|# ax'\n-", max_size=30))
def test_any_source_renders_or_is_an_input_error(jinja):
    try:
        prompt = render(jinja, {"a": "甲"}, shrink=["a"])
    except InputError:
        return
    assert prompt.inputs == prompt.inputs.strip()
