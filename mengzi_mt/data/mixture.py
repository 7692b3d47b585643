"""Mixtures: which task, template and row stands at which position. A pure function of (seed, position).

Positions are dealt in blocks. Within a block every task gets its exact quota (the difference of the rounded cumulative
rates), shuffled by the block's own seed; so the number of a task's examples before any position is known without
replaying, and a run resumes at step *n* at once, on any number of workers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from mengzi_mt.config import MixtureSettings
from mengzi_mt.data.examples import Skip, TextExample, render_example, skip_of, usable
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template import Template
from mengzi_mt.tasks.rows import Row
from mengzi_mt.tasks.task import Task

BLOCK = 4_096


class _Seed:
    """``_seed`` of some parts and a last one, the first parts hashed once."""

    def __init__(self, *parts: object) -> None:
        self._begun = hashlib.sha256("\x1f".join([*map(str, parts), ""]).encode())

    def __call__(self, last: str) -> int:
        digest = self._begun.copy()
        digest.update(last.encode())
        return int.from_bytes(digest.digest()[:8], "big")


@dataclass(frozen=True)
class Pool:
    """A task's rows and templates, ready to be drawn from. Rows that no template can use are left out."""

    task: Task
    rows: tuple[Row, ...]
    templates: tuple[Template, ...]

    @cached_property
    def _skips(self) -> tuple[tuple[int, Skip], ...]:
        """The templates that skip rows: place and condition."""
        return tuple((number, skip_of(template)) for number, template in enumerate(self.templates) if template.skip_if)

    def templates_for(self, row: Row) -> Sequence[Template]:
        """The templates that can use the row, in order."""
        left_out = [number for number, skips in self._skips if skips(row)]
        if not left_out:
            return self.templates
        return [template for number, template in enumerate(self.templates) if number not in left_out]


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


def mixing_rates(sizes: Mapping[str, int], settings: MixtureSettings) -> dict[str, float]:
    """Rates that sum to 1, one a task.

    ``proportional`` is T5's examples-proportional mixing, r = min(rows, cap) (arXiv:1910.10683, section 3.5.2);
    ``temperature`` raises those to 1/T before normalising.
    """
    if settings.strategy == "equal":
        raw = dict.fromkeys(sizes, 1.0)
    elif settings.strategy == "explicit":
        raw = {name: settings.rates[name] for name in sizes}
    else:
        power = 1 / settings.temperature if settings.strategy == "temperature" else 1.0
        raw = {name: float(min(size, settings.cap)) ** power for name, size in sizes.items()}
    total = sum(raw.values())
    return {name: rate / total for name, rate in raw.items()}


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big")


class Draw(NamedTuple):
    """What stands at one position."""

    task: int
    row: int
    template: Template


class Mixture:
    """An endless, seeded sequence of examples over several pools."""

    def __init__(self, pools: Sequence[Pool], rates: Mapping[str, float], seed: int) -> None:
        self.pools = list(pools)
        self.rates = [rates[pool.task.name] for pool in self.pools]
        self.seed = seed
        self._cumulative = np.cumsum(np.array(self.rates, dtype=np.float64))
        self._cumulative[-1] = 1.0
        self._block = lru_cache(maxsize=2)(self._deal_block)
        self._order = lru_cache(maxsize=4 * len(self.pools))(self._shuffled_rows)
        self._template_seeds = [_Seed(seed, "template", pool.task.name) for pool in self.pools]

    def draws_before(self, position: int) -> list[int]:
        """How many examples of each pool stand before ``position``, a multiple of :data:`BLOCK`."""
        reached = np.floor(self._cumulative * position + 0.5).astype(np.int64)
        return [int(count) for count in np.diff(reached, prepend=0)]

    def draw(self, position: int) -> Draw:
        """The task, row and template at a position."""
        task, row, turn = self.place(position)
        pool = self.pools[task]
        templates = pool.templates_for(pool.rows[row])
        return Draw(task, row, templates[turn % len(templates)])

    def place(self, position: int) -> tuple[int, int, int]:
        """The pool and the row at a position, and the turn, which modulo the row's templates tells which one."""
        tasks, ranks = self._block(position // BLOCK)
        offset = position % BLOCK
        task = int(tasks[offset])
        rows = self.pools[task].rows
        epoch, place = divmod(int(ranks[offset]), len(rows))
        row = int(self._order(task, epoch)[place])
        return task, row, self._template_seeds[task](rows[row].row_id) + epoch

    def example(self, position: int) -> TextExample:
        """The rendered example at a position."""
        draw = self.draw(position)
        pool = self.pools[draw.task]
        return render_example(pool.task, draw.template, pool.rows[draw.row])

    def examples(self, start: int, stop: int) -> Iterator[TextExample]:
        """The rendered examples at positions ``start`` to ``stop - 1``."""
        for position in range(start, stop):
            yield self.example(position)

    def counts(self, start: int, stop: int) -> dict[str, dict[str, int]]:
        """Exact number of examples per task and template between two positions, by replaying the draws."""
        counter: Counter[tuple[str, str]] = Counter()
        for position in range(start, stop):
            draw = self.draw(position)
            counter[self.pools[draw.task].task.name, draw.template.name] += 1
        table: dict[str, dict[str, int]] = {}
        for (task, template), count in sorted(counter.items()):
            table.setdefault(task, {})[template] = count
        return table

    def _deal_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """For every position of a block: its pool, and how many of that pool's examples stand before it."""
        start = self.draws_before(block * BLOCK)
        stop = self.draws_before((block + 1) * BLOCK)
        tasks = np.repeat(np.arange(len(self.pools)), [b - a for a, b in zip(start, stop, strict=True)])
        ranks = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
        order = np.random.default_rng(_seed(self.seed, "block", block)).permutation(len(tasks))
        return tasks[order], ranks[order]

    def _shuffled_rows(self, task: int, epoch: int) -> np.ndarray:
        pool = self.pools[task]
        return np.random.default_rng(_seed(self.seed, "rows", pool.task.name, epoch)).permutation(len(pool.rows))
