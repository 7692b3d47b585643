import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.data.examples import TextExample
from mengzi_mt.errors import InputError
from mengzi_mt.sdk.fitting import fit, water_level


def characters(text):
    return [ord(one) for one in text]


def render(texts):
    return TextExample(f"甲：{texts['a']}乙：{texts['b']}", "", None, (), 1.0, "task", "template", "0")


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 120))
def test_the_level_is_the_greatest_that_fits(sizes, budget):
    def total(level):
        return sum(min(size, level) for size in sizes)

    level = water_level(sizes, budget)
    assert total(level) <= budget
    assert level == max(sizes) or total(level + 1) > budget


def test_the_longest_text_is_cut_and_a_short_one_stays_whole():
    example, cut = fit({"a": "短问", "b": "长" * 100}, render, characters, 40)
    assert example.inputs == "甲：短问乙：" + "长" * 34
    assert cut == 66


def test_what_fits_is_not_touched():
    assert fit({"a": "一", "b": "二"}, render, characters, 40) == (render({"a": "一", "b": "二"}), 0)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80), st.integers(8, 60))
def test_it_fits_and_counts_what_is_left_out(a, b, limit):
    example, cut = fit({"a": a, "b": b}, render, characters, limit)
    assert len(example.inputs) <= limit
    assert len(example.inputs) + cut == len(render({"a": a, "b": b}).inputs)


def test_a_prompt_that_is_too_long_without_any_text_is_named():
    with pytest.raises(InputError, match="longer than 4 tokens"):
        fit({"a": "一", "b": "二"}, render, characters, 4)
