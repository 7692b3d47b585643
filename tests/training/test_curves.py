import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mengzi_mt.training.curves import (
    HEIGHT,
    MOST_POINTS,
    WIDTH,
    Axis,
    Series,
    chart,
    log_ticks,
    short,
    thinned,
    tick_labels,
    ticks,
    written,
)

VALUES = st.floats(-1e12, 1e12, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.0123"), (2e-5, "2e-5"), (1500, "1.5k"), (3e6, "3M"), (2.5e9, "2.5G"), (-1500, "-1.5k"), (1.0, "1")],
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_shares_are_written_as_percent():
    assert written(0.125, Axis("share")) == "12.5%"


@given(low=VALUES, size=st.floats(1e-9, 1e12))
def test_ticks_are_within_the_ends_and_few(low, size):
    high = low + size
    if not high > low:
        return
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), size)
    assert all(low - slack <= value <= high + slack for value in found)
    assert 1 <= len(found) <= 8


def test_ticks_are_round():
    assert ticks(0.0, 1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(130, 870) == [200, 400, 600, 800]
    assert log_ticks(0.3, 7.0) == [0.5, 1.0, 2.0, 5.0]
    assert log_ticks(1e-3, 10.0) == [1e-3, 1e-2, 0.1, 1.0, 10.0]


def test_neighbouring_ticks_read_differently():
    assert tick_labels([3.878, 3.88, 3.882], Axis()) == ["3.8780", "3.8800", "3.8820"]
    assert tick_labels([0.5001, 0.5002], Axis("share")) == ["50.010%", "50.020%"]
    assert tick_labels([1.0], Axis()) == ["1"]


def test_long_curves_are_averaged_and_keep_their_extremes():
    points = [(step, 1.0 + 9.0 * (step == 1_000)) for step in range(1, 2_001)]
    found = thinned(points)
    assert len(found) == MOST_POINTS
    assert max(most for _, _, _, most in found) == 10.0
    assert sum(mean for _, mean, _, _ in found) < 1.2 * MOST_POINTS + 2
    assert "band" in chart("x", [Series("a", points)]) and "band" not in chart("x", [Series("a", points[:200])])


@given(st.lists(VALUES, min_size=1, max_size=40), st.booleans(), st.booleans())
def test_everything_drawn_lies_within_the_chart(values, zero, log):
    series = Series("<a&b>", [(10 * number, value) for number, value in enumerate(values, 1)])
    root = ElementTree.fromstring(chart("t", [series], Axis(zero=zero, log=log), end=1_000))
    circles = [element for element in root if element.get("class") == "hit"]
    assert len(circles) == len(values)
    for circle in circles:
        assert 0 <= float(circle.get("cx")) <= WIDTH and -1 <= float(circle.get("cy")) <= HEIGHT
    assert circles[0][0].text.startswith("<a&b>, step 10: ")


def test_the_log_axis_keeps_order_and_needs_a_range():
    def heights(values):
        root = ElementTree.fromstring(chart("t", [Series("a", list(enumerate(values)))], Axis(log=True)))
        return [float(element.get("cy")) for element in root if element.get("class") == "hit"]

    logarithmic = heights([8.0, 4.0, 2.0, 1.0, 0.5])
    gaps = [right - left for left, right in pairwise(logarithmic)]
    assert all(math.isclose(gap, gaps[0], abs_tol=0.2) for gap in gaps)
    linear = heights([2.0, 1.0, 0.5])
    assert linear[1] - linear[0] > 1.5 * (linear[2] - linear[1])


def test_nothing_to_draw_is_no_chart():
    assert chart("t", [Series("a", [])]) == ""
