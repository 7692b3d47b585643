import pytest

from mengzi_mt.prompts.lint import leaks, masked, named_choices, near_duplicates, own_words
from mengzi_mt.prompts.template import Template, TemplateMetadata

ROWS = [(f"r{i}", {"text": f"这句话里有好评二字{i}", "label": i % 2, "label2": i % 2}) for i in range(6)]


def template(jinja, choices="差评 ||| 好评", name="t", **extra):
    return Template(name, name, jinja, "toy", choices, metadata=TemplateMetadata(extra=extra))


def leaking(jinja, choices="差评 ||| 好评", rows=ROWS, **extra):
    return leaks(template(jinja, choices, **extra), [(row_id, row, row) for row_id, row in rows], frozenset({"label"}))


def test_own_words_hold_no_expressions_statements_or_blanks():
    assert own_words(template("{# x #}评论：{{ a | join('、') }}\n{% if b %}好 {% endif %}吗？|||好")) == "评论：◇好吗？"


def test_nearly_equal_templates_are_found_and_deprecated_ones_left_alone():
    a, b, c = (template(f"请判断下面这条{w}的感情色彩：{{{{ x }}}}|||x", None, w) for w in ("评论", "点评", "新闻标题以及它的摘要"))
    assert [(x.name, y.name) for x, y, _ in near_duplicates([a, b, c])] == [("评论", "点评")]
    old = template(a.jinja, None, "old", deprecated=True)
    assert list(near_duplicates([a, old])) == []


def test_masks_of_one_row_share_no_character():
    row = masked({"a": "甲", "b": ["乙", "甲"], "c": [{"text": "丙", "type": "人名"}], "label": 1, "d": ""})
    texts = [row["a"], *row["b"], row["c"][0]["text"]]
    assert len(set("".join(texts))) == sum(map(len, texts))
    assert (row["c"][0]["type"], row["label"], row["d"]) == ("人名", 1, "")


@pytest.mark.parametrize(
    ("jinja", "choices"),
    [
        ("这条{{ answer_choices[label] }}怎么样：{{ text }}|||{{ answer_choices[label] }}", "差评 ||| 好评"),
        ("{{ text }}{% if label == 1 %}（好评）{% endif %}|||{{ answer_choices[label] }}", "差评 ||| 好评"),
        ("{{ text }}答案是{{ text }}|||{{ text }}", None),
    ],
)
def test_answer_in_the_templates_words_is_found(jinja, choices):
    found, tested = leaking(jinja, choices)
    assert found
    assert tested == len(ROWS)


@pytest.mark.parametrize(
    ("jinja", "choices"),
    [
        ("{{ text }}是差评还是好评？|||{{ answer_choices[label] }}", "差评 ||| 好评"),
        ("{{ text }}是好评吗？|||{{ answer_choices[label] }}", "差评 ||| 好评"),  # the same words on every row tell nothing
        ("{{ text }}：{{ answer_choices | join('、') }}|||{{ answer_choices[label] }}", "差评 ||| 好评"),
        ("写一条{{ ['差评', '好评'][label] }}：|||{{ text }}", None),
        ("续写：{{ text[:3] }}|||{{ text[3:] }}", None),
    ],
)
def test_honest_templates_give_nothing_away(jinja, choices):
    assert leaking(jinja, choices)[0] == []


def test_skipped_rows_are_not_tested_for_leaks():
    assert leaking("{{ text }}|||{{ answer_choices[label] }}", skip_if="label == 0")[1] == 3


@pytest.mark.parametrize(
    ("words", "choices", "named"),
    [
        ("是不是", ("是", "不是"), {"是", "不是"}),
        ("是或者不是", ("是", "不是"), {"是", "不是"}),
        ("不是", ("是", "不是"), {"不是"}),
        ("好吗", ("是", "否"), set()),
    ],
)
def test_a_choice_within_a_longer_one_does_not_count_as_named(words, choices, named):
    assert set(named_choices(template(f"{words}{{{{ text }}}}|||x"), choices)) == named
