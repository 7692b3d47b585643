"""Line charts as SVG: curves of one or several runs over optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mengzi_mt.page import escape

WIDTH, HEIGHT = 400, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 22
MOST_POINTS = 240
"""Points drawn of a curve; longer ones are averaged in that many stretches, with a band from least to most."""
FEW_POINTS = 12
"""So few points are marked each."""
COLOURS = 6
LOG_FROM = 8.0
"""A chart of positive numbers whose largest is so many times its least has a logarithmic axis."""

STYLE = """
svg.chart { width: 100%; height: auto; overflow: visible; }
svg.chart text { font: 12px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums; }
svg.chart .grid { stroke: var(--line); stroke-width: 1; }
svg.chart path { fill: none; stroke-width: 1.8; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
svg.chart path.dashed { stroke-dasharray: 5 4; }
svg.chart path.band { stroke: none; opacity: .2; }
svg.chart .hit { fill: transparent; stroke: none; }
svg.chart .hit:hover { fill: var(--ink); fill-opacity: .35; }
""" + "".join(
    f".c{n} {{ --c: var(--c{n}); }} svg.chart .c{n} {{ stroke: var(--c{n}); }} svg.chart .c{n}.band, "
    f"svg.chart circle.dot.c{n} {{ fill: var(--c{n}); }}\n"
    for n in range(COLOURS)
)
_LIGHT = ("#2b6296", "#b8500a", "#2c7a4b", "#8d3f92", "#80640a", "#b3274e")
_DARK = ("#6eaae2", "#f0965a", "#6cc492", "#d294d8", "#d6b84a", "#f58aa6")


def _palette(colours: Sequence[str]) -> str:
    return " ".join(f"--c{number}: {colour};" for number, colour in enumerate(colours))


PALETTE = f":root {{ {_palette(_LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {_palette(_DARK)} }} }}\n"


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        label: said where the mouse rests on a point.
        points: (step, value), by step.
        colour: 0 to 5.
        dashed: for a second kind of curve in the same colour.
    """

    label: str
    points: Sequence[tuple[int, float]]
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """How values are laid out and written."""

    kind: Literal["plain", "share"] = "plain"
    zero: bool = False
    """Whether the axis starts at zero, for quantities whose size counts."""
    log: bool = False
    """Whether it may be logarithmic; with ``zero`` it is not."""


def short(value: float) -> str:
    """A number in a few characters: ``0.012``, ``1.5k``, ``3M``, ``2e-5``."""
    size = abs(value)
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}" if size >= 1e-3 or not value else f"{value:.2g}".replace("e-0", "e-")


def written(value: float, axis: Axis) -> str:
    """A value as its axis writes it."""
    return f"{100 * value:.3g}%" if axis.kind == "share" else short(value)


def tick_labels(values: Sequence[float], axis: Axis) -> list[str]:
    """Ticks as their axis writes them, with as many digits as tell neighbours apart."""
    labels = [written(value, axis) for value in values]
    if len(set(labels)) == len(labels):
        return labels
    factor, sign = (100, "%") if axis.kind == "share" else (1, "")
    gap = min(abs(right - left) for left, right in pairwise(values)) * factor
    digits = max(0, math.ceil(-math.log10(gap) - 1e-6) + 1) if gap else 0
    return [f"{value * factor:.{digits}f}{sign}" for value in values]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) within the ends."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the ends, or the powers alone where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 200 else (1,)
    found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
    return found if len(found) > 1 else [low, high]


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float, float, float]]:
    """(step, mean, least, most) of at most :data:`MOST_POINTS` stretches of equal numbers of points."""
    count = min(len(points), MOST_POINTS)
    stretches = [points[len(points) * n // count : len(points) * (n + 1) // count] for n in range(count)]
    return [
        (
            sum(step for step, _ in part) / len(part),
            sum(value for _, value in part) / len(part),
            min(value for _, value in part),
            max(value for _, value in part),
        )
        for part in stretches
    ]


def chart(title: str, series: Sequence[Series], axis: Axis | None = None, hover: bool = True, place: str = "", end: int = 0) -> str:
    """A chart as an ``<svg>`` of 400 by 200 units, empty text where no series has a point.

    Args:
        title: for readers who cannot see it.
        series: the curves.
        axis: of the values; plain by default.
        hover: whether resting on a point shows its value.
        end: the last step of the axis, which starts at 0; by default that of the curves.
        place: attributes of the element (``x``, ``y``, ``width``, ``height``) inside another ``<svg>``.
    """
    axis = axis or Axis()
    drawn = [(one, thinned(one.points)) for one in series if one.points]
    if not drawn:
        return ""
    steps = [point[0] for _, points in drawn for point in points]
    low, high = min(point[2] for _, points in drawn for point in points), max(point[3] for _, points in drawn for point in points)
    logarithmic = axis.log and not axis.zero and low > 0 and high / low >= LOG_FROM
    if axis.zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-12 * max(1.0, abs(high)):
        margin = abs(high) * 0.05 or 1.0
        low, high = (low if axis.zero and low == 0 else low - margin), high + margin
    elif not logarithmic:
        margin = (high - low) * 0.05
        low, high = (low if axis.zero and low == 0 else low - margin), high + margin
    first, last = 0, max(*steps, end, 1)
    scale: Callable[[float], float] = math.log if logarithmic else float

    def x(step: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (step - first) / (last - first), 1)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (scale(value) - scale(low)) / (scale(high) - scale(low)), 1)

    parts = []
    heights = log_ticks(low, high) if logarithmic else ticks(low, high)
    for value, text in zip(heights, tick_labels(heights, axis), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    marks = [step for step in ticks(first, last) if step == int(step)]
    for number, step in enumerate(marks):
        anchor = "end" if number == len(marks) - 1 and x(step) > WIDTH - 30 else "middle"
        parts.append(f'<text x="{x(step)}" y="{HEIGHT - 5}" text-anchor="{anchor}">{short(step)}</text>')
    said = []
    for one, points in drawn:
        colour = f"c{one.colour % COLOURS}"
        if len(one.points) > MOST_POINTS:
            edge = [f"{x(p[0])} {y(p[3])}" for p in points] + [f"{x(p[0])} {y(p[2])}" for p in reversed(points)]
            parts.append(f'<path class="{colour} band" d="M{"L".join(edge)}Z"/>')
        if len(points) <= FEW_POINTS:
            parts += [f'<circle class="{colour} dot" cx="{x(p[0])}" cy="{y(p[1])}" r="3"/>' for p in points]
        if len(points) > 1:
            dashed = " dashed" if one.dashed else ""
            line = "L".join(f"{x(p[0])} {y(p[1])}" for p in points)
            parts.append(f'<path class="{colour}{dashed}" d="M{line}"/>')
        said.append(f"{one.label} from {written(one.points[0][1], axis)} to {written(one.points[-1][1], axis)}")
    if hover:
        for one, points in drawn:
            for step, mean, _, _ in points:
                text = escape(f"{one.label}, step {step:,.0f}: {written(mean, axis)}")
                parts.append(f'<circle class="hit" cx="{x(step)}" cy="{y(mean)}" r="5"><title>{text}</title></circle>')
    label = escape(f"{title}: {'; '.join(said)}")
    return f'<svg class="chart" {place} viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
