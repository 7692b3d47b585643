import pytest

from mengzi_mt.training.card import model_card, research_only
from mengzi_mt.training.loop import train

TERMS = {"a": {"research_only": False}, "b": {"research_only": "unknown"}, "c": {"research_only": True}}


@pytest.mark.parametrize(("names", "expected"), [("a", False), ("ab", "unknown"), ("abc", True), ("ac", True), ("", False)])
def test_strictest_terms_hold_for_the_mixture(names, expected):
    assert research_only({name: TERMS[name] for name in names}) == expected


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("a", "None of the datasets states a restriction"),
        ("ab", "The terms of b are not stated"),
        ("abc", "**For research only**: so say the terms of c. The terms of b"),
    ],
)
def test_card_says_what_may_be_done(names, said):
    assert said in model_card({"data": {name: TERMS[name] for name in names}})


def test_research_only_licence_follows_the_mixture_into_the_checkpoint(make_run):
    folder = train(make_run())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "**For research only**: so say the terms of lcqmc." in card
    assert "| lcqmc |" in card
    assert "samples bundled with mengzi-mt" in card
