import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.inputs import check_labels, check_rows, check_text, rows_of


@pytest.mark.parametrize("value", ["", "  \n", "\x00\x01", "\u200b\u200d", "\u3000"])
def test_a_text_without_anything_to_see_is_empty(value):
    with pytest.raises(InputError, match="empty"):
        check_text(value, "here")


@pytest.mark.parametrize("value", [None, 5, 1.5, b"text", ["text"], {"text": 1}])
def test_what_is_no_text_is_named(value):
    with pytest.raises(InputError, match="Expected a text"):
        check_text(value, "here")


@pytest.mark.parametrize("value", ["😀", "\ud800", "。", "<p>", "a\x00"])
def test_a_text_with_something_to_see_is_one(value):
    assert check_text(value, "here") == value


def test_rows_are_checked_by_name():
    task = TASKS["similarity"]
    assert check_rows(task, [{"text": "甲", "other": "乙"}]) == [{"text": "甲", "other": "乙"}]
    for row, message in [
        ({"text": "甲"}, "'other' is missing"),
        ({"text": "甲", "othr": "乙"}, "no input 'othr'"),
        ("甲", "by name"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            check_rows(task, [{"text": "甲", "other": "乙"}, row])
        assert "similarity, row 1" in error.value.where


def test_an_optional_input_may_be_left_out_or_empty():
    assert check_rows(TASKS["keywords"], [{"text": "甲", "title": ""}, {"text": "甲"}]) == [{"text": "甲"}] * 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("甲乙", "list of labels"), (["甲"], "two labels"), (["甲", "乙", "甲 "], "more than once: 甲"), (["甲", ""], "empty"),
        (["甲", 5], "text"), (None, "list"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_chosen_from(labels, message):
    with pytest.raises(InputError, match=message):
        check_labels(labels, "labels")


def test_a_text_goes_with_every_item_of_a_list():
    assert rows_of({"a": "x", "b": ["1", "2"]}) == ([{"a": "x", "b": "1"}, {"a": "x", "b": "2"}], True)
    assert rows_of({"a": "x"}) == ([{"a": "x"}], False)
    assert rows_of({"a": []}) == ([], True)
    with pytest.raises(InputError, match="equal length"):
        rows_of({"a": ["1"], "b": ["1", "2"]})
