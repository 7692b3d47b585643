"""Entities by cutword, in spaCy's pipeline."""

import pytest

from mengzi_mt.corpora.taggers import UPOS, load_tagger

pytest.importorskip("spacy")
pytest.importorskip("rjieba")
pytest.importorskip("cutword")


@pytest.fixture(scope="module")
def tagger():
    return load_tagger("cutword")


def found(tagger, text):
    [tagged] = tagger.tag([text])
    assert "".join(text[start:stop] for start, stop, _ in tagged.words) == text
    return [(text[start:stop], tagger.entities[kind]) for start, stop, kind in tagged.entities]


def test_names_are_found_and_common_nouns_are_not(tagger):
    text = "2021年，澜舟科技在北京发布了模型，创始人周明曾任微软亚洲研究院副院长。"
    assert found(tagger, text) == [("澜舟科技", "ORG"), ("北京", "LOC"), ("周明", "PERSON"), ("微软亚洲研究院", "ORG")]
    assert "cutword" in tagger.name and tagger.pos == UPOS


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n",
        "  周明 在北京！张三在上海。  \n李四去了南京",
        "周明\n周明\n周明",
        "a" * 900,
        "周明在北京。" * 200,
        "ＡＢＣ 龘😀\t。",
        "\ufeff周明",
    ],
)
def test_any_text_is_tagged_whole(tagger, text):
    entities = found(tagger, text)
    assert len(entities) == (400 if text.startswith("周明在北京。") else len(entities))
    assert all(entity in text for entity, _ in entities)


def test_entities_keep_their_places_after_blanks_and_lines(tagger):
    text = "  周明 在北京！张三在上海。  \n李四去了南京"
    [tagged] = tagger.tag([text])
    assert [text[a:b] for a, b, _ in tagged.entities] == ["周明", "北京", "张三", "上海", "李四", "南京"]


def test_a_word_that_an_entity_cuts_becomes_two(tagger, monkeypatch):
    from types import SimpleNamespace

    component = tagger.pipeline.get_pipe("mengzi_mt_cutword")
    answer = [SimpleNamespace(entity="清华", begin=2, end=4, ner_type_en="ORG")]
    monkeypatch.setattr(component.network, "predict", lambda texts: [answer for _ in texts])
    [tagged] = tagger.tag(["他在清华大学"])
    assert [(a, b) for a, b, _ in tagged.words] == [(0, 1), (1, 2), (2, 4), (4, 6)]
    assert len({kind for a, _, kind in tagged.words if a >= 2}) == 1
    assert [(a, b) for a, b, _ in tagged.entities] == [(2, 4)]


def test_many_texts_are_tagged_as_each_alone(tagger):
    texts = ["周明在北京。", "", "王小明去了上海交通大学。", "今天天气好。"] * 3
    assert [one.entities for one in tagger.tag(texts)] == [next(iter(tagger.tag([text]))).entities for text in texts]


def test_it_says_nothing_while_it_works(tagger, capsys, recwarn):
    list(tagger.tag(["周明在北京。"]))
    assert capsys.readouterr() == ("", "") and not list(recwarn)


def test_without_cutword_it_says_what_to_install(monkeypatch):
    from mengzi_mt.corpora import taggers
    from mengzi_mt.errors import InputError

    real = taggers.importlib.util.find_spec
    monkeypatch.setattr(taggers.importlib.util, "find_spec", lambda name: None if name == "cutword" else real(name))
    with pytest.raises(InputError, match="cutword is not installed"):
        load_tagger("cutword")
