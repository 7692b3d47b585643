import math
import statistics
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mengzi_mt.pretraining.ablation_page import markdown, page, picture, sentences, shown
from mengzi_mt.pretraining.ablation_results import ACCURACY, LOSS, MEAN, decided, paired, t_quantile, t_share


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (9, 2.262157), (30, 2.042272)]
)
def test_quantiles_are_those_of_the_tables(freedom, value):
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=1e-6)


def test_shares_are_the_integral_of_the_density():
    for freedom in (1, 2, 5, 8):
        scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
        places = np.linspace(0, 1.7, 20_001)
        density = scale * (1 + places**2 / freedom) ** (-(freedom + 1) / 2)
        expected = 0.5 + float(((density[1:] + density[:-1]) / 2 * np.diff(places)).sum())
        assert t_share(1.7, freedom) == pytest.approx(expected, abs=1e-8)


def test_intervals_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    own, other = random.normal(1.0, 1.0, (2_000, 3)), random.normal(0.0, 1.0, (2_000, 3))
    held = [paired(a.tolist(), b.tolist())["interval"] for a, b in zip(own, other, strict=True)]
    assert 0.935 < statistics.fmean(low <= 1.0 <= high for low, high in held) < 0.965


def test_the_interval_of_three_pairs_by_hand():
    found = paired([3.0, 4.0, 8.0], [1.0, 1.0, 4.0])
    assert found["differences"] == [2.0, 3.0, 4.0]
    assert found["interval"] == pytest.approx([3 - 4.302653 / math.sqrt(3), 3 + 4.302653 / math.sqrt(3)], abs=1e-5)
    assert decided(found)
    assert not decided(paired([1.0, -1.0, 0.5], [0.0, 0.0, 0.0]))
    assert paired([1.0], [0.0])["interval"] is None
    assert not decided(paired([1.0], [0.0]))


def measures(shift, base=None):
    values = {
        "lcqmc": [0.60, 0.61, 0.62],
        "<b>": [0.5, 0.5, 0.5],
        MEAN: [0.55, 0.555, 0.56],
        ACCURACY: [0.2, 0.2, 0.21],
        LOSS: [6.0, 6.1, 6.2],
    }
    own = {name: [value + shift * (1 + 0.01 * seed) for seed, value in enumerate(row)] for name, row in values.items()}
    found = {name: {"values": row, "mean": statistics.fmean(row)} for name, row in own.items()}
    if base is not None:
        for name in found:
            found[name] |= paired(own[name], base[name]["values"])
    return found


@pytest.fixture
def results():
    first = measures(0.0)
    read = {"tokens": 1100.0, "text_tokens": 1000.0, "masked_tokens": 150.0, "seconds": 20.0}
    task = {"kind": "pair", "metric": "accuracy", "train_rows": 10, "validation_rows": 5, "floor": 0.5, "ceiling": None}
    run = {"variant": "baseline", "seed": 1, "seconds": 9.0, "examples": 640, "held_out": {"loss": 6.0, "accuracy": 0.2}}
    return {
        "name": "tiny", "baseline": "baseline", "seeds": [1, 2, 3], "tasks": {"lcqmc": task, "<b>": task},
        "variants": [
            {"name": "baseline", "changes": {}, "measures": first, **read},
            {"name": "better", "changes": {"pos": 1.0}, "measures": measures(0.04, first), **read, "seconds": 30.0},
            {"name": "equal", "changes": {}, "measures": measures(0.0, first) | {"lcqmc": {"values": [], "mean": 0.6, **paired(
                [0.7, 0.5, 0.6], [0.6, 0.61, 0.6])}}, **read, "text_tokens": 990.0},
        ],
        "runs": [{**run, "tasks": {"lcqmc": {"score": 0.6}, "<b>": {"score": 0.5}}}],
        "budget": {"steps": 20}, "corpus": {"fingerprint": "abc", "tagger": None}, "data": {"source": "files", "map": None},
        "recipe": {},
    }  # fmt: skip


def test_the_table_has_differences_and_no_winners(results):
    text = markdown(results)
    lines = text.splitlines()
    assert lines[0].startswith("|  | lcqmc (accuracy) |")
    assert "| baseline | 61.0 | 50.0 |" in text
    assert "| better | 65.0 (+4.0 [+3.9, +4.1])" in text
    assert "| equal | 60.0 (−0.3 [−26.4, +25.8])" in text
    assert "× 1.50" in text
    assert "equal -1.00%" in text
    assert "**" not in text
    assert "*" not in text
    assert all(line.count("|") == lines[0].count("|") for line in lines[:5])


def test_what_is_said_is_what_the_intervals_say(results):
    said = " ".join(sentences(results))
    assert "5 of 10 intervals hold zero" in said
    assert "better, lcqmc: +4.0 [+3.9, +4.1]" in said
    assert "equal, " not in said
    results["seeds"] = [1]
    assert sentences(results) == ["One seed: differences have no interval, and nothing follows from them."]


def test_the_picture_is_svg_that_marks_only_what_is_decided(results):
    root = ElementTree.fromstring(picture(results, alone=True))
    space = "{http://www.w3.org/2000/svg}"
    dots = [circle.get("class") for circle in root.iter(f"{space}circle")]
    assert (dots.count("decided"), dots.count("open"), dots.count("seed")) == (5, 5, 30)
    width = float(root.get("viewBox").split()[2])
    for line in root.iter(f"{space}line"):
        assert 0 <= float(line.get("x1")) <= width
        assert 0 <= float(line.get("x2")) <= width


def test_the_page_escapes_and_loads_nothing(results):
    text = page(results)
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "http" not in text.replace("http-equiv", "")
    results["data"]["source"] = "sample"
    assert "these scores mean nothing" in page(results)


def test_numbers_are_written_as_they_are():
    assert [shown("lcqmc", value, True) for value in (0.004, -0.0051, 0.0001, -0.0001)] == ["+0.4", "−0.5", "0.0", "0.0"]
    assert shown(LOSS, -0.0123, True) == "−0.012"
