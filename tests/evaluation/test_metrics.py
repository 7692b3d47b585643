import itertools
import math
from collections import Counter
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.data.examples import render_rows, select_templates
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.metrics import (
    TEXT_METRICS,
    accuracy,
    binomial_p,
    bleu,
    char_f1,
    compute_text_metric,
    entity_f1,
    exact_match,
    macro_f1,
    normalise,
    parse_entities,
    rouge_l,
    wilson_interval,
)
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

WORDS = st.text(alphabet="甲乙丙丁", max_size=7)
LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12)


def slow_macro_f1(pairs):
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(1 for p, r in pairs if p == label and r == label)
        precision = Fraction(hits, sum(1 for p, _ in pairs if p == label) or 1)
        recall = Fraction(hits, sum(1 for _, r in pairs if r == label) or 1)
        scores.append(2 * precision * recall / (precision + recall) if hits else Fraction(0))
    return float(sum(scores) / len(scores))


def slow_substring(a, b):
    pieces = {a[i:j] for i in range(len(a)) for j in range(i + 1, len(a) + 1)}
    return max((len(piece) for piece in pieces if piece in b), default=0)


def slow_subsequence(a, b):
    for size in range(min(len(a), len(b)), 0, -1):
        if set(itertools.combinations(a, size)) & set(itertools.combinations(b, size)):
            return size
    return 0


def f1(common, a, b):
    return 2 * common / (a + b) if common else 0.0


def slow_bleu(predictions, references):
    """Papineni et al. 2002, equations 1-3, with the closest reference length; one reference list a row."""
    logs = []
    for n in (1, 2, 3, 4):
        clipped = total = 0
        for prediction, several in zip(predictions, references, strict=True):
            grams = [prediction[i : i + n] for i in range(len(prediction) - n + 1)]
            total += len(grams)
            for gram in set(grams):
                most = max(sum(r[i : i + n] == gram for i in range(len(r))) for r in several)
                clipped += min(grams.count(gram), most)
        if clipped == 0:
            return 0.0
        logs.append(math.log(clipped / total))
    c = sum(map(len, predictions))
    closest = [
        min((len(r) for r in several), key=lambda size: (abs(size - len(p)), size))
        for p, several in zip(predictions, references, strict=True)
    ]
    penalty = 1.0 if c > sum(closest) else math.exp(1 - sum(closest) / c)
    return penalty * math.exp(sum(logs) / 4)


def test_accuracy():
    assert accuracy([0, 1, 2, 1], [0, 1, 1, 0]) == 0.5
    assert accuracy([], []) == 0.0


def test_macro_f1_by_hand():
    # class 0: P 1/2, R 1; class 1: P 1, R 1/2; class 2 is never right
    assert macro_f1([0, 0, 1, 2], [0, 1, 1, 0]) == pytest.approx((0.5 + 2 / 3 + 0) / 3)


@given(LABELS)
def test_macro_f1_equals_the_slow_reference(pairs):
    predictions, references = zip(*pairs, strict=True)
    assert macro_f1(list(predictions), list(references)) == pytest.approx(slow_macro_f1(pairs))


@settings(max_examples=20, deadline=None)
@given(LABELS)
def test_macro_f1_equals_scikit_learn(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    predictions, references = (list(side) for side in zip(*pairs, strict=True))
    assert macro_f1(predictions, references) == pytest.approx(sklearn.f1_score(references, predictions, average="macro"))


def test_text_is_normalised_on_both_sides():
    assert normalise("　Ｑ：　好，\n不好 ") == "Q: 好, 不好"
    assert exact_match(["（１）好，很好。"], [["(1)好,很好"]]) == 1.0
    assert rouge_l(["好，很好"], [["好,很好"]]) == bleu(["好，很好"], [["好,很好"]]) == 1.0


def test_exact_match_takes_any_reference():
    assert exact_match(["北京", "上海", "iPhone"], [["南京", "北京"], ["上海市"], ["IPHONE"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("北京大学", "北京大学", 1.0),
        ("北大京学", "北京大学", f1(1, 4, 4)),  # a common subsequence of three, a common substring of one
        ("在北京大学。", "《北京大学》", f1(4, 5, 4)),  # punctuation does not count
        ("1998年", "1997年", f1(1, 2, 2)),  # a number is one unit
        ("Apple公司", "apple", f1(1, 3, 1)),
        ("", "北京", 0.0),
        ("，。", "，。", 0.0),
    ],
)
def test_char_f1_is_that_of_cmrc_2018(prediction, reference, expected):
    assert char_f1([prediction], [[reference]]) == pytest.approx(expected)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_char_f1_equals_the_slow_reference(prediction, references):
    expected = max(f1(slow_substring(prediction, r), len(prediction), len(r)) for r in references)
    assert char_f1([prediction], [references]) == pytest.approx(expected)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_rouge_l_equals_the_slow_reference(prediction, references):
    expected = max(f1(slow_subsequence(prediction, r), len(prediction), len(r)) for r in references)
    assert rouge_l([prediction], [references]) == pytest.approx(expected)


def test_rouge_l_keeps_chinese():
    assert rouge_l(["今天天气好"], [["今天天气很好"]]) == pytest.approx(10 / 11)


def test_bleu_by_hand():
    # 1 to 4-grams: 5/5, 4/4, 2/3 and 1/2 of the prediction's stand in the reference; six characters there, five here
    assert bleu(["今天天气好"], [["今天天气很好"]]) == pytest.approx(math.exp(1 - 6 / 5) * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["今天"], [["今天"]]) == 0.0  # no 4-gram, no smoothing
    assert bleu([], []) == 0.0


CORPUS = st.lists(
    st.tuples(st.text("甲乙", min_size=1, max_size=9), st.lists(st.text("甲乙", min_size=1, max_size=9), min_size=1, max_size=3)),
    min_size=1,
    max_size=4,
)


@given(CORPUS)
def test_bleu_equals_the_slow_reference(corpus):
    predictions, references = (list(side) for side in zip(*corpus, strict=True))
    assert bleu(predictions, references) == pytest.approx(slow_bleu(predictions, references))


@settings(max_examples=30, deadline=None)
@given(CORPUS)
def test_bleu_equals_sacrebleu(corpus):
    sacrebleu = pytest.importorskip("sacrebleu")
    predictions, references = (list(side) for side in zip(*corpus, strict=True))
    most = max(map(len, references))
    streams = [[" ".join(several[i]) if i < len(several) else None for several in references] for i in range(most)]
    spaced = [" ".join(prediction) for prediction in predictions]
    expected = sacrebleu.corpus_bleu(spaced, streams, smooth_method="none", tokenize="none", force=True)
    assert bleu(predictions, references) == pytest.approx(expected.score / 100)


def test_text_metrics_by_name():
    assert compute_text_metric("rouge", ["甲"], [["甲"]]) == 1.0
    with pytest.raises(InputError, match="no text metric 'meteor'"):
        compute_text_metric("meteor", [], [])


@pytest.mark.parametrize("name", sorted(set(TEXT_METRICS) - {"entity_f1"}))
def test_text_metrics_are_one_for_equal_texts_and_zero_for_nothing(name):
    assert compute_text_metric(name, ["从前有座山"], [["从前有座山"]]) == pytest.approx(1.0)
    assert compute_text_metric(name, [""], [["从前有座山"]]) == 0.0


ENTITIES = {("人名", "鲁迅"), ("人名", "许广平"), ("地名", "北京"), ("书名", "《两地书》")}


@pytest.mark.parametrize(
    "text",
    [
        "人名：鲁迅，许广平；地名：北京；书名：《两地书》",
        "人名：鲁迅、许广平\n地名：北京\n书名：《两地书》",
        "人名: 鲁迅, 许广平; 地名: 北京; 书名: 《两地书》",
        "【人名】鲁迅、许广平【地名】北京【书名】《两地书》",
        "（人名，鲁迅）（人名，许广平）（地名，北京）（书名，《两地书》）",
        "鲁迅（人名）\n许广平（人名）\n北京（地名）\n《两地书》（书名）",
        "鲁迅是人名，许广平是人名，北京是地名，《两地书》是书名",
    ],
)
def test_entities_are_parsed_from_every_way_of_writing_them(text):
    assert parse_entities(text) == ENTITIES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("鲁迅，许广平", {("", "鲁迅"), ("", "许广平")}),
        ("无", set()),
        ("", set()),
        ("人名：无\n职位：校长", {("职位", "校长")}),
        ("人名：无\n职位：无", set()),
        ("《战地：叛逆连队》（游戏）", {("游戏", "《战地:叛逆连队》")}),
        ("IBM（中国）（公司）", {("公司", "IBM(中国)")}),
        ("（公司，IBM（中国））（人名，鲁迅", {("公司", "IBM(中国)")}),  # cut short by the length limit
        ("公司：【中国银行】", {("公司", "【中国银行】")}),
        ("【公司】【中国银行】", {("公司", "【中国银行】")}),
        ("【中国银行】（公司）", {("公司", "【中国银行】")}),
        ("《我是谁》是电影", {("电影", "《我是谁》")}),
    ],
)
def test_difficult_entities(text, expected):
    assert parse_entities(text) == expected


# What a template asks for, where that is not every entity under its own type: its types, and the type its answer names.
ASKED = {
    "people_and_positions": {"人名": "人名", "职位": "职位"},
    "organisations_only": {"公司": "", "组织机构": "", "政府机构": ""},
    "places_and_works": {"地名": "地点", "景点": "地点", "书名": "作品", "电影": "作品", "游戏": "作品"},
}
NER = get_task("cluener2020")


@pytest.mark.parametrize("template", select_templates(NER, None, for_evaluation=True), ids=lambda template: template.name)
def test_the_target_of_each_ner_template_parses_to_what_it_asks_for(template):
    rows = load_rows(NER, "train", DataSource("sample")).rows
    kinds = ASKED.get(template.name, {word: word for word in NER.labels.values()})
    for row, example in zip(rows, render_rows(NER, template, rows), strict=True):
        expected = {(kinds[e["type"]], normalise(e["text"])) for e in row.values["entities"] if e["type"] in kinds}
        assert parse_entities(example.targets) == expected


def test_entity_f1_is_micro_and_per_mention():
    predictions = ["人名：鲁迅，许广平", "地名：北京", "无"]
    references = [["人名：鲁迅"], ["公司：北京"], ["书名：《呐喊》"]]
    assert entity_f1(predictions, references) == pytest.approx(2 * 1 / (3 + 3))
    assert entity_f1(["无"], [["无"]]) == 0.0
    assert entity_f1(["鲁迅（人名）"], [["人名：鲁迅"]]) == 1.0


def test_wilson_interval_by_hand():
    assert wilson_interval(0.8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert wilson_interval(0.5, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (1, 7), (30, 160), (5, 5), (2500, 3000)])
def test_wilson_interval_solves_its_equation(hits, n):
    share, z = hits / n, 1.959964
    for bound in wilson_interval(share, n):
        assert (share - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / n, abs=1e-12)


@pytest.mark.parametrize(("hits", "n", "chance"), [(1, 1, 0.5), (7, 10, 0.5), (40, 160, 1 / 7), (0, 9, 0.3), (90, 160, 0.5)])
def test_binomial_p_equals_the_exact_sum(hits, n, chance):
    exact = Fraction(chance)
    expected = sum(comb(n, k) * exact**k * (1 - exact) ** (n - k) for k in range(hits, n + 1))
    assert binomial_p(hits, n, chance) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("hits", "chance", "expected"), [(3, 1.0, 1.0), (3, 0.0, 0.0), (0, 0.0, 1.0)])
def test_binomial_p_at_the_ends(hits, chance, expected):
    assert binomial_p(hits, 3, chance) == expected


def test_binomial_p_of_a_large_test_set_is_finite():
    assert 0 < binomial_p(1_700, 3_000, 0.5) < 1e-10


def test_parsed_entities_are_counted_once():
    assert Counter(kind for kind, _ in parse_entities("人名：鲁迅，鲁迅")) == {"人名": 1}
