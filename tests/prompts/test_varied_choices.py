from collections import Counter

import numpy as np
import pytest

from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.varied_choices import drawn_choices, picking_field, render_varied

CHOICES = "体育 ||| 财经 ||| 科技 ||| 教育"
JOINED = "{{ text }}\n可选：{{ answer_choices | join('、') }}|||{{ answer_choices[label] }}"
LOOPED = "{% for choice in answer_choices %}- {{ choice }}\n{% endfor %}{{ text }}||| {{ answer_choices[label] }} "


def template(jinja=JOINED, choices=CHOICES, **more):
    return Template("1", "t", jinja, "toy", choices, **more)


@pytest.mark.parametrize("jinja", [JOINED, LOOPED])
def test_listed_choices_that_a_number_picks_can_be_varied(jinja):
    assert picking_field(template(jinja)) == "label"


@pytest.mark.parametrize(
    ("jinja", "choices"),
    [
        ("{{ text }}|||{{ answer_choices[label] }}", CHOICES),  # none listed
        (JOINED, "{{ options | join(' ||| ') }}"),  # other ones on every row
        (JOINED, "体育"),
        (
            "A. {{ answer_choices[0] }} B. {{ answer_choices[1] }} {{ answer_choices | join }}|||{{ answer_choices[label] }}",
            CHOICES,
        ),
        (JOINED + "。", CHOICES),
        ("{{ text }}{{ answer_choices | join }}|||{{ label }}", CHOICES),
        ("{{ text }}{{ answer_choices | join }}|||{{ answer_choices[0] }}", CHOICES),
        ("{{ label }}{{ answer_choices | join }}|||{{ answer_choices[label] }}", CHOICES),
        ("{% set label = 1 %}{{ answer_choices | join }}|||{{ answer_choices[label] }}", CHOICES),
        ("{{ text }}{{ answer_choices | reverse | join }}|||{{ answer_choices[label] }}", CHOICES),
    ],
)
def test_others_cannot(jinja, choices):
    assert picking_field(template(jinja, choices)) is None


@pytest.mark.parametrize(("gold", "number"), [(0, 2), (2, 3), (17, 40)])
def test_drawn_choices_hold_the_right_one_and_no_other_place_is_preferred(gold, number):
    drawn = [drawn_choices(gold, number, np.random.default_rng(seed)) for seed in range(4_000)]
    assert all(gold in order and len(set(order)) == len(order) for order in drawn)
    assert {len(order) for order in drawn} == set(range(2, number + 1))
    counts = Counter(place for order in drawn for place in order if place != gold)
    assert len(counts) == number - 1
    assert max(counts.values()) < 1.4 * min(counts.values())
    firsts = sum(order[0] == gold for order in drawn)
    assert firsts == pytest.approx(sum(1 / len(order) for order in drawn), rel=0.15)


def test_the_answer_stays_and_the_choices_are_those_listed():
    values = {"text": "央行降息", "label": 1}
    lists = set()
    for seed in range(60):
        rendered = render_varied(template(shrink={"text": "tail"}), "label", values, np.random.default_rng(seed))
        assert rendered.targets == "财经"
        assert rendered.inputs == f"央行降息\n可选：{'、'.join(rendered.choices)}"
        assert [rendered.inputs[span.start : span.end] for span in rendered.shrinkable] == ["央行降息"]
        lists.add(rendered.choices)
    assert len(lists) > 30


@pytest.mark.parametrize("label", [None, "1", True, 4, -1])
def test_a_row_whose_field_picks_nothing_is_left_alone(label):
    assert render_varied(template(), "label", {"text": "x", "label": label}, np.random.default_rng(0)) is None
