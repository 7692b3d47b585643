"""The picture of a pipeline's report: what is kept of the teacher's score against what a form costs, with the frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mengzi_mt.page import escape
from mengzi_mt.training.curves import log_ticks, short, ticks

WIDTH, HEIGHT = 480, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 16, 46
_SMALLEST, _LARGEST = 4.0, 17.0
"""Radius of circles."""
_LETTER, _LINE = 7.4, 14.0
"""Width of a letter and height of a line, about; labels that would touch are moved."""

STYLE = """
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem 2.5rem; }
.pictures figcaption { font-weight: 600; margin: 0 0 .3rem; }
svg.pareto { width: 100%; height: auto; max-width: 40rem; overflow: visible; }
svg.pareto text { font: 13px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums; }
svg.pareto text.label { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
svg.pareto text.label.best { font-weight: 600; }
svg.pareto .grid { stroke: var(--line); stroke-width: 1; }
svg.pareto .same { stroke: var(--soft); stroke-dasharray: 4 3; }
svg.pareto .frontier { fill: none; stroke: var(--right); stroke-width: 2; opacity: .75; }
svg.pareto .range { stroke-width: 1.2; opacity: .55; }
svg.pareto circle { stroke-width: 1.6; fill-opacity: .22; }
svg.pareto .teacher { stroke: var(--majority); fill: var(--majority); }
svg.pareto .compressed { stroke: rgb(var(--accent)); fill: rgb(var(--accent)); }
svg.pareto .plain { stroke: var(--soft); fill: var(--soft); }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; border: 1.5px solid; }
.key i.teacher { border-color: var(--majority); background: color-mix(in srgb, var(--majority) 22%, transparent); }
.key i.compressed { border-color: rgb(var(--accent)); background: rgb(var(--accent) / .22); }
.key i.plain { border-color: var(--soft); background: color-mix(in srgb, var(--soft) 22%, transparent); }
.key i.line { border: 0; border-top: 2px solid var(--right); border-radius: 0; height: 0; width: 1.2rem; }
"""
KEY = (
    '<div class="key"><span><i class="plain"></i>transformers, float32</span><span><i class="teacher"></i>the teacher\'s weights'
    '</span><span><i class="compressed"></i>made smaller</span><span><i class="line"></i>frontier, by the points</span></div>'
)


@dataclass(frozen=True)
class Point:
    """A form.

    Attributes:
        letter: that stands for it in the table.
        label: its name.
        cost: to the right is worse; positive.
        kept: share of the teacher's score.
        interval: of ``kept``, if it is known.
        size: what the circle's area shows, as a share of the largest.
        best: whether it is on the frontier.
        group: ``plain``, ``teacher`` or ``compressed``.
    """

    letter: str
    label: str
    cost: float
    kept: float
    interval: tuple[float, float] | None
    size: float
    best: bool
    group: str


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def pareto(title: str, axis: str, points: Sequence[Point]) -> str:
    """The picture as an ``<svg>`` of 480 by 360 units; the axis of costs is logarithmic.

    Args:
        title: for readers who cannot see it.
        axis: what costs are, with the unit.
        points: the forms.
    """
    lefts = [point.cost for point in points]
    low, high = min(lefts) / 1.35, max(lefts) * 1.35
    ends = [end for point in points for end in (point.interval or (point.kept, point.kept))]
    bottom, top = max(0.0, min(ends)), min(1.5, max(*ends, 1.0))
    space = max(0.02, 0.06 * (top - bottom))
    bottom, top = max(0.0, bottom - space), top + space

    def x(cost: float) -> float:
        share = math.log(cost / low) / math.log(high / low)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(kept: float) -> float:
        share = (min(max(kept, bottom), top) - bottom) / (top - bottom)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    floor, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in ticks(bottom, top, 5):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.3g}%</text>')
    for tick in log_ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{_TOP}" y2="{floor}"/>')
        parts.append(f'<text x="{x(tick)}" y="{floor + 17}" text-anchor="middle">{short(tick)}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">{escape(axis)}</text>')
    parts.append(f'<line class="same" x1="{_LEFT}" x2="{right}" y1="{y(1)}" y2="{y(1)}"/>')
    parts.append(_frontier(points, x, y, right))
    placed: list[tuple[Point, float, float, float]] = []
    for point in sorted(points, key=lambda one: -one.size):
        radius = max(_SMALLEST, _LARGEST * math.sqrt(point.size))
        across, up = x(point.cost), y(point.kept)
        if point.interval:
            ends_y = y(point.interval[0]), y(point.interval[1])
            parts.append(f'<line class="range {point.group}" x1="{across}" x2="{across}" y1="{ends_y[0]}" y2="{ends_y[1]}"/>')
        parts.append(
            f'<circle class="{point.group}" cx="{across}" cy="{up}" r="{radius:.1f}"><title>{escape(_told(point))}</title></circle>'
        )
        placed.append((point, across, up, radius))
    parts += _labels(placed)
    return f'<svg class="pareto" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'


def _told(point: Point) -> str:
    between = f" ({100 * point.interval[0]:.1f}–{100 * point.interval[1]:.1f}%)" if point.interval else ""
    return f"{point.letter} {point.label}: {short(point.cost)}, keeps {100 * point.kept:.1f}%{between}"


def _frontier(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float], right: float) -> str:
    """A staircase through the best points: what is kept at most for this cost or less."""
    best = sorted((point for point in points if point.best), key=lambda point: point.cost)
    if not best:
        return ""
    path = f"M{x(best[0].cost)} {y(best[0].kept)}" + "".join(f"H{x(one.cost)}V{y(one.kept)}" for one in best[1:])
    return f'<path class="frontier" d="{path}H{right}"/>'


def _labels(placed: Sequence[tuple[Point, float, float, float]]) -> list[str]:
    """The letter of each point, with its name on the frontier, where nothing is yet; the frontier's first."""
    taken: list[Box] = [(at - r * 0.8, up - r * 0.8, at + r * 0.8, up + r * 0.8) for _, at, up, r in placed]
    drawn = []
    for point, at, up, radius in sorted(placed, key=lambda one: (not one[0].best, one[1])):
        texts = [f"{point.letter} {point.label}", point.letter] if point.best else [point.letter]
        text, box = next(
            (
                (text, box)
                for text in texts
                for box in _places(at, up, radius, len(text) * _LETTER)
                if box[0] >= _LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - _BOTTOM
                and not any(_touch(box, other) for other in taken)
            ),
            (point.letter, (at - 4, up - 7, at + 4, up + 7)),
        )  # fmt: skip
        taken.append(box)
        drawn.append(
            f'<text class="label{" best" if point.best else ""}" x="{box[0]:.1f}" y="{box[3] - 3:.1f}">{escape(text)}</text>'
        )
    return drawn


def _places(at: float, up: float, radius: float, width: float) -> list[Box]:
    """Where a label may stand: right, left, above, below, and the corners; then the same farther away."""
    found = []
    for gap in (3.0, 12.0, 24.0):
        side, middle = radius + gap, up - _LINE / 2
        corner = 0.7 * radius + gap
        lefts = (
            (at + side, middle), (at - side - width, middle), (at - width / 2, up - side - _LINE), (at - width / 2, up + side),
            (at + corner, up - corner - _LINE), (at + corner, up + corner), (at - corner - width, up - corner - _LINE),
            (at - corner - width, up + corner),
        )  # fmt: skip
        found += [(left, top, left + width, top + _LINE) for left, top in lefts]
    return found


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
