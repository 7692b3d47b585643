import math
import re
import statistics

import pytest

from mengzi_mt.data.stats import BIN_EDGES, label_balance, lengths, pooled_balance, task_stats, token_counter
from mengzi_mt.data.stats_page import page, write_page
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, Row


def characters(texts):
    return [len(text) for text in texts]


@pytest.fixture
def source(write_root):
    return write_root(
        lcqmc={
            "train.txt": [["今天天气好吗", "天气", int(n < 10)] for n in range(40)],
            "test.txt": [["短", "也短", 1], ["很长很长很长", "短", 1]],
        }
    )


def test_a_tasks_splits(source):
    task = task_stats(get_task("lcqmc"), source, characters)
    train, validation, test = (task["splits"][name] for name in ("train", "validation", "test"))
    assert train["rows"] + validation["rows"] == 40 and task["rows"] == 42
    assert (train["read"], validation["read"], test["read"]) == (40, None, 2)
    assert "hash cut" in train["cut"] and test["cut"] is None
    assert test["labels"]["label"] == {"counts": {"不同": 0, "相同": 2}, "majority": 1.0, "evenness": 0.0}
    assert task["labels"]["label"]["counts"] == {"不同": 30, "相同": 12}
    assert (test["characters"]["p50"], test["characters"]["max"], task["characters"]["sum"]) == (4, 8, 40 * 9 + 4 + 8)
    assert task["licence"]["name"] == get_task("lcqmc").licence.name


def test_groups_are_counted_by_what_belongs_together(write_root):
    rows = [{"content": f"第{n % 3}句#idiom#", "candidates": list("甲乙丙"), "answer": n % 2} for n in range(7)]
    split = task_stats(get_task("chid"), write_root(chid={"test_public.json": rows}), characters)["splits"]["test_public"]
    assert (split["rows"], split["groups"]) == (7, 3)
    assert split["labels"]["answer"]["counts"] == {"1": 4, "2": 3}


def test_entities_are_counted_by_type():
    task = get_task("cluener2020")
    spans = [{"type": "人名", "text": "张三", "start": 0, "end": 2}, {"type": "公司", "text": "某司", "start": 3, "end": 5}]
    (balance,) = label_balance(task, [Row("a:1", {"entities": spans}), Row("a:2", {"entities": spans[:1]})]).values()
    assert {word: n for word, n in balance["counts"].items() if n} == {"人名": 2, "公司": 1}


def test_evenness_is_entropy_over_its_largest_value():
    balance = pooled_balance([{"label": {"counts": {"甲": 1, "乙": 2}}}, {"label": {"counts": {"甲": 0, "乙": 1, "丙": 4}}}])[
        "label"
    ]
    shares = [1 / 8, 3 / 8, 4 / 8]
    assert balance["counts"] == {"甲": 1, "乙": 3, "丙": 4} and balance["majority"] == 0.5
    assert balance["evenness"] == pytest.approx(-sum(share * math.log(share) for share in shares) / math.log(3))


def test_lengths_are_values_that_occur():
    values = [0, 1, 7, 7, 9, 50, 120, 20_000]
    result = lengths(values)
    assert result["p50"] == statistics.median_low(values) and result["p95"] == result["max"] == 20_000
    assert (sum(result["bins"]), len(result["bins"])) == (len(values), len(BIN_EDGES) - 1)
    assert (result["bins"][0], result["bins"][-1]) == (2, 1)
    assert lengths([])["max"] == 0


def test_token_counts_are_those_of_the_tokenizer(tokenizer):
    texts = ["今天天气", "", "</s><pad>", "坏\ud800", "长" * 700]
    counts = token_counter(tokenizer, batch=2)(texts)
    assert counts[0] == len(tokenizer("今天天气", add_special_tokens=False).input_ids)
    assert counts[1] == 0 and counts[2] > 2 and counts[4] > 1


@pytest.fixture
def sample_stats():
    names = ("lcqmc", "iflytek", "cmrc2018", "cluener2020")
    tasks = [task_stats(get_task(name), DataSource("sample"), characters) for name in names]
    settings = {"data": "sample", "data_map": None, "tokenizer": "models/mengzi-mt-mini"}
    return {"schema": "s", "created": "now", "seconds": 1.0, "settings": settings, "tasks": tasks, "not_read": []}


def test_page_is_one_chinese_file_that_loads_nothing(sample_stats, tmp_path):
    write_page(sample_stats, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert '<html lang="zh-Hans">' in text and "default-src 'none'" in text
    assert not re.findall(r"https?://|src=|<script|url\(", text)
    assert text.count("<section") == text.count("</section>") == 2 + 4 + 1
    assert all(f'id="{task["task"]}"' in text and task["title"]["zh"] in text for task in sample_stats["tasks"])


def test_page_says_where_it_stands_on_samples(sample_stats):
    assert "不是真实数据" in page(sample_stats)
    sample_stats["settings"]["data"] = "files"
    assert "不是真实数据" not in page(sample_stats)


def test_page_escapes_and_names_what_was_not_read(sample_stats):
    sample_stats["tasks"][0]["title"]["zh"] = "<b>&"
    sample_stats["not_read"] = [{"task": "finre", "reason": 'no "files"'}]
    text = page(sample_stats)
    assert "<b>" not in text and "&lt;b&gt;&amp;" in text
    assert "1 个任务没有读到" in text and "no &quot;files&quot;" in text


def test_page_folds_long_label_sets(sample_stats):
    labels = sample_stats["tasks"][1]["labels"]["label"]["counts"]
    assert len(labels) > 20 and f"另外 {len(labels) - 20} 个较少的标签" in page(sample_stats)


def test_page_of_empty_and_single_row_tasks(sample_stats):
    task = sample_stats["tasks"][0]
    task["rows"] = 0
    task["tokens"] = lengths([])
    assert "<svg" in page(sample_stats)
    sample_stats["tasks"] = []
    assert "任务与数据一览" in page(sample_stats)
