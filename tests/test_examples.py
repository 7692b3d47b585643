"""Every example runs and prints what it says."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHOWS = {
    "advertising": ["design_copy: ", "shop_owner_dialogue: "],
    "financial_extraction": ["海天集团昨日公告", "受原料涨价影响"],
    "graph_facts": ["云溪大桥的设计者是谁？", "【"],
    "label_csv": ["id,review,sentiment,probability", "等了十天才到，包装还是破的。,负面,"],
    "own_labels": ["in own words"],
    "pseudo_labels": ["left for a person", '"label": '],
    "rerank": ["信用卡丢了怎么补办", "借记卡挂失流程"],
    "translate": ["温故而知新，可以为师矣。 → ", "    or: "],
}


def test_there_is_an_expectation_for_each():
    assert {path.stem for path in EXAMPLES} == set(SHOWS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path))
    shown = capsys.readouterr().out
    print(shown)
    for text in SHOWS[path.stem]:
        assert text in shown
