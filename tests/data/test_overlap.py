import json

import pytest

from mengzi_mt.data.overlap import (
    OverlapSettings,
    compare_corpus,
    compare_task,
    evaluation_texts,
    index_texts,
    make_report,
    task_views,
)
from mengzi_mt.errors import InputError
from mengzi_mt.tasks.registry import get_task

LONG = "上个月在网上订的那台白色洗衣机为什么到现在还没有送到我家里来"
NEAR = "请问上个月在网上订的那台白色洗衣机为什么到现在还没送到呢"
SHORT = "明天会不会下雨"
PUNCTUATED = "上 个 月，在网上订的「那台白色洗衣机」为什么 到现在还没有送到 我家里来？？"
TAXI = "附近有什么好吃的火锅店"
FILLER = [[f"关于第{c}种植物的浇水办法是什么", f"怎样给第{c}种植物浇水才算合适", 0] for c in "甲乙丙丁戊己"]


@pytest.fixture
def source(write_root):
    return write_root(
        bustm={
            "test.json": [{"sentence1": LONG, "sentence2": SHORT, "id": 0}, {"sentence1": TAXI, "sentence2": LONG, "id": 1}],
            "unlabeled.json": [
                {"sentence1": "哈哈哈哈哈哈哈哈", "sentence2": "好"},
                {"sentence1": "帮我把客厅的灯全部关掉", "sentence2": "把客厅里的灯都关了吧", "id": 0},
            ],
        },
        lcqmc={
            "train.txt": [
                *FILLER,
                [PUNCTUATED, "洗衣机什么时候送到", 1],  # record 7: equal
                [NEAR, "明天会不会下雨呢", 0],  # record 8: near; the short text is not compared
                ["你知道附近有什么好吃的火锅店吗", "帮我把客厅的灯关掉", 0],  # record 9: contained; too short for near
            ],
            "test.txt": [[TAXI, LONG, 1]],  # a whole row
        },
    )


def compare(source, **settings):
    chosen = OverlapSettings(**settings)
    texts = evaluation_texts([get_task("bustm")], source, chosen)
    return texts, compare_task(index_texts(texts, chosen), get_task("lcqmc"), source, lambda _: None)


def test_planted_overlaps_are_found_and_nothing_else(source):
    texts, side = compare(source)
    words = dict(enumerate(texts.numbers))
    found = [(hit.row_id, words[hit.text], hit.kind) for hit in side.hits]
    assert sorted(found) == [
        ("test.txt:1", LONG, "equal"),
        ("test.txt:1", TAXI, "equal"),
        ("train.txt:7", LONG, "equal"),
        ("train.txt:8", LONG, "near"),
        ("train.txt:9", TAXI, "contained"),
    ]
    assert side.rows == 10  # both sides of the hash cut and the test split, each row once
    assert next(hit.share for hit in side.hits if hit.kind == "near") == pytest.approx(16 / 23)


def test_share_and_ngram_change_what_is_near(source):
    kinds = lambda **settings: {hit.row_id: hit.kind for hit in compare(source, **settings)[1].hits}  # noqa: E731
    assert "train.txt:8" not in kinds(share=0.7)
    assert kinds(ngram=5)["train.txt:8"] == "near"
    assert "train.txt:9" not in kinds(min_han=12)


def test_report_names_every_hit_and_counts_rows(source):
    texts, side = compare(source)
    report = make_report(texts, [side], [], {"settings": {}})
    assert report["evaluation"]["bustm"] == {"rows": {"test": 2, "unlabeled": 2}, "texts": 4, "too_short": 3}
    (line,) = report["summary"]
    assert (line["training"], line["evaluation"], line["training_rows"]) == ("lcqmc", "bustm", 4)
    assert line["texts"] == {"all": 2, "equal": 2, "contained": 0, "near": 0}
    assert (line["evaluation_rows"], line["whole_rows"]) == ({"test": 2}, {"test": 2})
    assert len(report["hits"]) == 5
    places = {place["row"]: place["field"] for text in report["texts"] for place in text["places"] if text["excerpt"] == LONG[:40]}
    assert places == {"test.json:1": "sentence1", "test.json:2": "sentence2"}
    assert json.loads(json.dumps(report)) == report


def test_a_pair_with_one_side_elsewhere_is_not_found_whole(write_root):
    source = write_root(
        bustm={"test.json": [{"sentence1": LONG, "sentence2": TAXI}]},
        lcqmc={"train.txt": [*FILLER, [LONG, "别的话别的话别的话", 0]]},
    )
    texts, side = compare(source)
    (line,) = make_report(texts, [side], [], {})["summary"]
    assert (line["evaluation_rows"], line["whole_rows"]) == ({"test": 1}, {})


def test_lists_are_compared_as_one_text(write_root):
    words = ["洗衣机", "白色家电", "售后服务"]
    source = write_root(
        csl={"test.json": [{"abst": "短摘要", "keyword": words}]}, lcqmc={"train.txt": [["、".join(words), "无关", 0]]}
    )
    texts = evaluation_texts([get_task("csl")], source, OverlapSettings())
    side = compare_task(index_texts(texts, OverlapSettings()), get_task("lcqmc"), source, lambda _: None)
    assert [hit.kind for hit in side.hits] == ["equal"]


def test_corpus_hits_name_their_lines(source, tmp_path):
    path = tmp_path / "corpus.jsonl"
    lines = [{"text": "没有什么"}, {"text": f"开头\n{LONG}\n结尾"}]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    texts = evaluation_texts([get_task("bustm")], source, OverlapSettings())
    counted = []
    side = compare_corpus(index_texts(texts, OverlapSettings()), path, counted.append)
    assert [(hit.row_id, hit.kind) for hit in side.hits] == [("corpus.jsonl:2", "contained")]
    assert (side.rows, sum(counted), task_views([side])) == (2, 2, {})


@pytest.mark.parametrize(
    ("settings", "where"),
    [({"ngram": 9}, "--ngram"), ({"ngram": 1}, "--ngram"), ({"share": 0}, "--share"), ({"share": 1.1}, "--share")],
)
def test_settings_that_cannot_be(settings, where):
    with pytest.raises(InputError) as caught:
        OverlapSettings(**settings)
    assert where in caught.value.where
