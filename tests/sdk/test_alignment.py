import time
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mengzi_mt.data.tokens import clean
from mengzi_mt.sdk.alignment import AlignedText, _inside_others
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows


@pytest.mark.parametrize(
    ("text", "mention", "places"),
    [
        ("张三爱北京，张三在北京", "张三", [(0, 2), (6, 8)]),
        ("本公司（ＡＢＣ１２）成立", "ABC12", [(4, 9)]),
        ("ＡＢＣ与abc", "ABC", [(0, 3)]),
        ("苹果Apple公司", "apple", [(2, 7)]),
        ("😀张三😀，😀李四", "李四", [(6, 8)]),
        ("一家人👨‍👩‍👧很好", "很好", [(8, 10)]),
        ("第①名，第②名", "1名", [(1, 3)]),
        ("张\u200b三\x00来了", "张三", [(0, 3)]),
        ("\ud83d\ude00张三", "张三", [(2, 4)]),
        ("\ud800张三\udfff", "张三", [(1, 3)]),
        ("e\u0301a，\u00e9a", "éa", [(0, 3), (4, 6)]),
        ("New  York Times", "NewYork", [(0, 9)]),
        ("哈哈哈哈", "哈哈", [(0, 2), (2, 4)]),
        ("一二三", "四", []),
        ("一二三", "", []),
        ("一二三", " \n", []),
    ],
)
def test_places_count_characters_of_the_callers_text(normalise, text, mention, places):
    found = AlignedText(text, normalise).places(mention)
    assert found == places


def test_an_entity_inside_of_another_stands_only_where_it_is_alone(normalise):
    text = "北京大学在北京，清华大学也在北京。"
    placed, unplaced = AlignedText(text, normalise).entities([("组织机构", "北京大学"), ("地名", "北京"), ("地名", "上海")])
    assert [(one.type, one.text, one.start, one.end) for one in placed] == [
        ("组织机构", "北京大学", 0, 4),
        ("地名", "北京", 5, 7),
        ("地名", "北京", 14, 16),
    ]
    assert unplaced == [("地名", "上海")]


def test_an_entity_that_stands_nowhere_alone_is_kept(normalise):
    placed, _ = AlignedText("北京大学", normalise).entities([("组织机构", "北京大学"), ("地名", "北京")])
    assert [(one.text, one.start) for one in placed] == [("北京", 0), ("北京大学", 0)]


ANY = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("张三北京，Ａa1①\u0301\u200d😀 \n")), max_size=30)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ANY, mention=ANY, after=ANY)
def test_whatever_is_found_reads_as_the_mention(normalise, before, mention, after):
    """A slow reference: the found part, normalised by itself, is the mention normalised by itself, case and blanks aside."""

    def read(text):
        made = "".join(normalise(one) for one in clean(text))
        return "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", made).casefold()).split())

    text = before + mention + after
    for start, end in AlignedText(text, normalise).places(mention):
        assert 0 <= start < end <= len(text)
        visible = "".join(one for one in text[start:end] if unicodedata.category(one) not in ("Cc", "Cf"))
        wanted = "".join(one for one in mention if unicodedata.category(one) not in ("Cc", "Cf"))
        assert read(visible) == read(wanted)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.text("北京，Ａa😀①\u200b \x01", max_size=12), after=st.text("北京，Ａa😀①\u200b \x01", max_size=12))
def test_a_chinese_mention_is_found_where_it_was_put(normalise, before, after):
    text = f"{before}张小明{after}"
    assert AlignedText(text, normalise).places("张小明") == [(len(before), len(before) + 3)]


def test_gold_spans_of_cluener_are_found_at_their_places(normalise, data_root):
    task = get_task("cluener2020")
    rows = load_rows(task, "train", DataSource("files", data_root, load_data_map_named("public-extracts"))).rows[:3_000]
    gold = found = 0
    for row in rows:
        aligned = AlignedText(row.values["text"], normalise)
        for entity in row.values["entities"]:
            gold += 1
            found += (entity["start"], entity["end"]) in aligned.places(entity["text"])
    assert gold > 5_000
    assert found == gold


def load_data_map_named(name):
    from pathlib import Path

    return load_data_map(Path(name))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=12))
def test_places_inside_of_others_by_their_definition(drawn):
    places = {(start, start + length) for start, length in drawn}
    inside = {one for one in places if any(two != one and two[0] <= one[0] and one[1] <= two[1] for two in places)}
    assert _inside_others(places) == inside


def test_a_mention_that_stands_thirty_thousand_times(normalise):
    began = time.monotonic()
    entities, _ = AlignedText("张伟，" * 30_000, normalise).entities([("人名", "张伟"), ("人名", "张伟，")])
    assert len(entities) == 60_000 and time.monotonic() - began < 20
