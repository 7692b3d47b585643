import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mengzi_mt.evaluation.generation import Generated
from mengzi_mt.evaluation.normalisation import ChoiceScores
from mengzi_mt.sdk.voting import vote_of_choices, vote_of_mentions, vote_of_texts

SCORES = st.integers(2, 5).flatmap(
    lambda size: st.lists(st.lists(st.floats(-20, 0), min_size=size, max_size=size), min_size=1, max_size=5)
)


def scores(rows):
    return [ChoiceScores(tuple(row), (1,) * len(row), (1,) * len(row)) for row in rows]


@given(SCORES)
def test_probabilities_are_the_normalised_geometric_mean(rows):
    soft = [[math.exp(one) / sum(map(math.exp, row)) for one in row] for row in rows]
    product = [math.prod(column) ** (1 / len(rows)) for column in zip(*soft, strict=True)]
    expected = [one / sum(product) for one in product]
    best, found = vote_of_choices(scores(rows), "mean")
    assert found == pytest.approx(expected)
    assert expected[best] == pytest.approx(max(expected))


def test_a_majority_may_outvote_the_mean():
    rows = [(-1.0, -1.1), (-1.0, -1.1), (-9.0, -0.1)]
    assert vote_of_choices(scores(rows), "mean")[0] == 1
    assert vote_of_choices(scores(rows), "majority")[0] == 0


def test_equal_votes_are_decided_by_the_mean():
    assert vote_of_choices(scores([(-1.0, -1.1), (-9.0, -0.1)]), "majority")[0] == 1


def test_texts_by_votes_then_by_probability_of_a_token():
    answers = [Generated("甲", -1.0, 1), Generated("乙", -4.0, 2), Generated("乙", -5.0, 2)]
    assert vote_of_texts(answers) == 1
    assert vote_of_texts([Generated("甲", -3.0, 1), Generated("乙", -4.0, 2)]) == 1
    assert vote_of_texts([Generated("甲"), Generated("乙")]) == 0


def test_mentions_by_majority():
    several = [[("人名", "甲"), ("人名", "乙")], [("人名", "乙"), ("人名", "乙")], [("人名", "丙"), ("人名", "乙"), ("人名", "甲")]]
    assert vote_of_mentions(several) == [("人名", "甲"), ("人名", "乙")]
