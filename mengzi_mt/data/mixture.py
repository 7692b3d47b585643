"""Mixtures: the rows and templates of several tasks, drawn by the sampler and rendered. A pure function of (seed, position)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mengzi_mt.config import MixtureSettings
from mengzi_mt.data.examples import TextExample, render_example, render_with_drawn_choices, usable
from mengzi_mt.data.sampling import Draws, Sampler, Source, Stage, generator
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.varied_choices import picking_field
from mengzi_mt.tasks.rows import Row
from mengzi_mt.tasks.task import Task


@dataclass(frozen=True)
class Pool:
    """A task's rows and templates, ready to be drawn from. Rows that no template can use are left out."""

    task: Task
    rows: tuple[Row, ...]
    templates: tuple[Template, ...]

    def templates_for(self, row: Row) -> list[Template]:
        """The templates that can use the row, in order."""
        return [template for template in self.templates if usable(template, row)]

    def source(self) -> Source:
        """The pool as the sampler sees it."""
        table = None
        if any(template.skip_if for template in self.templates):
            table = np.array([[usable(template, row) for template in self.templates] for row in self.rows])
        return Source(self.task.name, len(self.rows), len(self.templates), table)


def make_pool(task: Task, rows: Sequence[Row], templates: Sequence[Template]) -> Pool:
    """A pool of the rows that at least one template can use.

    Raises:
        InputError: nothing is left.
    """
    kept = rows if any(not t.skip_if for t in templates) else [row for row in rows if any(usable(t, row) for t in templates)]
    if not kept or not templates:
        raise InputError(
            f"The task {task.name!r} yields no training example ({len(rows)} rows, {len(templates)} templates)",
            where="mixture.tasks",
            fix="check its files and templates, or take it out of the mixture",
        )
    return Pool(task, tuple(kept), tuple(templates))


def mixing_rates(
    sizes: Mapping[str, int], settings: MixtureSettings, templates: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Rates of the tasks of ``settings`` that sum to 1.

    ``proportional`` is examples-proportional mixing. With ``cap_per: task`` a task counts as r = min(rows, cap) examples
    (T5, arXiv:1910.10683, section 3.5.2). With ``cap_per: template`` every template is a task of its own that counts as
    its rows, or where they are more than the cap as floor(cap / templates), so that r = templates times that (T0,
    arXiv:2110.08207, section 5, and ``t0/seqio_tasks/tasks.py``). ``temperature`` raises r to 1/T.

    Args:
        sizes: rows per task.
        settings: strategy and tasks.
        templates: templates per task, for ``cap_per: template``.

    Raises:
        InputError: a rate that is too small to be drawn.
    """
    if not settings.tasks:
        return {}
    if settings.strategy == "equal":
        logs = dict.fromkeys(settings.tasks, 0.0)
    elif settings.strategy == "explicit":
        logs = {name: math.log(settings.rates[name]) for name in settings.tasks}
    else:
        temperature = settings.temperature if settings.strategy == "temperature" else 1.0
        counted = {name: _counted(sizes[name], (templates or {}).get(name, 1), settings) for name in settings.tasks}
        logs = {name: math.log(count) / temperature for name, count in counted.items()}
    highest = max(logs.values())
    raw = {name: math.exp(log - highest) for name, log in logs.items()}
    total = sum(raw.values())
    for name, rate in raw.items():
        if rate / total < 1e-9:
            raise InputError(
                f"The task {name!r} has the rate {rate / total:.1e}: it would never be drawn", where="mixture",
                fix="take it out of the mixture, or raise its rate or the temperature",
            )  # fmt: skip
    return {name: rate / total for name, rate in raw.items()}


def _counted(rows: int, templates: int, settings: MixtureSettings) -> int:
    if settings.cap_per == "task":
        return min(rows, settings.cap)
    return templates * (rows if rows <= settings.cap else max(1, settings.cap // templates))


class Mixture:
    """An endless, seeded sequence of examples over several pools.

    Args:
        pools: what is drawn from.
        rates: rates by task, or stages with rates of their own.
        seed: another seed draws otherwise.
        vary_choices: share of the examples whose listed choices come in another order, some left out, where the template's can.
    """

    def __init__(
        self, pools: Sequence[Pool], rates: Mapping[str, float] | Sequence[Stage], seed: int, vary_choices: float = 0.0
    ) -> None:
        self.pools = list(pools)
        self.seed = seed
        self.vary_choices = vary_choices
        self._picking = [[picking_field(t) if vary_choices else None for t in pool.templates] for pool in self.pools]
        self.stages = [Stage(rates)] if isinstance(rates, Mapping) else list(rates)
        self.sampler = Sampler([pool.source() for pool in self.pools], self.stages, seed)

    @property
    def rates(self) -> list[float]:
        """The rate of each pool in the last stage, which goes on for ever."""
        return [self.stages[-1].rates.get(pool.task.name, 0.0) for pool in self.pools]

    def draws(self, positions: range) -> Draws:
        """Indices of pool, row and template at the positions."""
        return self.sampler.draws(positions)

    def example(self, position: int) -> TextExample:
        """The rendered example at a position."""
        return next(self.examples(position, position + 1))

    def examples(self, start: int, stop: int, step: int = 1) -> Iterator[TextExample]:
        """The rendered examples at positions ``start`` to ``stop - 1``, every ``step``-th."""
        positions = range(start, stop, step)
        drawn = zip(*(array.tolist() for array in self.draws(positions)), strict=True)
        for position, (number, row, template) in zip(positions, drawn, strict=True):
            pool, field = self.pools[number], self._picking[number][template]
            draws = generator(self.seed, "choices", position) if field else None
            if field and draws is not None and draws.random() < self.vary_choices:
                yield render_with_drawn_choices(pool.task, pool.templates[template], field, pool.rows[row], draws)
            else:
                yield render_example(pool.task, pool.templates[template], pool.rows[row])

    def counts(self, start: int, stop: int) -> dict[str, dict[str, int]]:
        """Exact number of examples per task and template between two positions; templates that are not drawn are left out."""
        table = {}
        for pool, counts in zip(self.pools, self.sampler.counts(start, stop), strict=True):
            drawn = {template.name: int(count) for template, count in zip(pool.templates, counts, strict=True) if count}
            if drawn:
                table[pool.task.name] = dict(sorted(drawn.items()))
        return dict(sorted(table.items()))
