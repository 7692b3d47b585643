"""Sampling: which task, row and template stands at which position, in numbers alone. A pure function of (seed, position).

A run is one or more stages with rates of their own; a stage's positions are dealt in blocks. How many examples of each task
stand before a block is known without replaying (:class:`Quotas`), and within a block they are shuffled by the block's own
seed. A task's examples, counted over the whole run, go through its rows in epochs: each row once an epoch, in an order of
the epoch's own, with the next of its templates every epoch. So a run resumes at any step at once, on any number of workers,
no row is read twice before every other was read once, and the counts of a whole run take a moment.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

BLOCK = 4_096
"""Positions that are shuffled together."""
_WHOLE = 1 << 40
"""Rates are kept as integers of this sum, so that quotas are exact at any position."""


@dataclass(frozen=True)
class Source:
    """A task as the sampler sees it. ``usable`` is a boolean array ``(rows, templates)``, or None where all can be used."""

    name: str
    rows: int
    templates: int
    usable: np.ndarray | None = None


@dataclass(frozen=True)
class Stage:
    """Rates of the tasks from position ``start`` to the next stage; tasks without a rate are not drawn."""

    rates: Mapping[str, float]
    start: int = 0


class Draws(NamedTuple):
    """What stands at some positions: indices of source, row and template, three int64 arrays ``(positions,)``."""

    sources: np.ndarray
    rows: np.ndarray
    templates: np.ndarray


class Quotas:
    """How many of the first ``n`` examples are of each task, for any ``n``, in closed form.

    Tasks are merged two by two, the rarest first (Huffman's tree), and ``n`` is split down the tree: the left branch gets
    ``n`` times its share, rounded, the right one the rest. So the counts sum to ``n``, none ever falls as ``n`` grows, and
    each stays within 2 of ``n`` times its rate. (Differences of rounded cumulative rates, the obvious rule, can fall.)
    """

    def __init__(self, rates: Sequence[float]) -> None:
        total = sum(rates)
        self._weights = [max(1, round(rate / total * _WHOLE)) if rate > 0 else 0 for rate in rates]
        self._splits: list[tuple[int, int, int]] = []
        heap = [(weight, number) for number, weight in enumerate(self._weights) if weight]
        heapq.heapify(heap)
        self._nodes = len(rates)
        while len(heap) > 1:
            (rare, left), (common, right) = heapq.heappop(heap), heapq.heappop(heap)
            self._splits.append((self._nodes, left, right))
            self._weights.append(rare + common)
            heapq.heappush(heap, (rare + common, self._nodes))
            self._nodes += 1
        self._tasks, self._root = len(rates), heap[0][1] if heap else None

    def __call__(self, n: int) -> np.ndarray:
        """The counts of the first ``n`` examples, int64 ``(tasks,)``."""
        counts = [0] * self._nodes
        if self._root is not None:
            counts[self._root] = n
        for node, left, right in reversed(self._splits):
            whole = self._weights[node]
            counts[left] = (2 * counts[node] * self._weights[left] + whole) // (2 * whole)
            counts[right] = counts[node] - counts[left]
        return np.array(counts[: self._tasks], dtype=np.int64)


class Sampler:
    """An endless, seeded sequence of draws from several sources. The last stage goes on for ever."""

    def __init__(self, sources: Sequence[Source], stages: Sequence[Stage], seed: int) -> None:
        self.sources, self.stages, self.seed = list(sources), list(stages), seed
        self._starts = [stage.start for stage in stages]
        self._quotas = [Quotas([stage.rates.get(source.name, 0.0) for source in sources]) for stage in stages]
        before = [np.zeros(len(sources), dtype=np.int64)]
        for quotas, (start, stop) in zip(self._quotas, pairwise(self._starts), strict=False):
            before.append(before[-1] + quotas(stop - start))
        self._before = before
        self._templates = [_TemplateTable(source, seed) for source in sources]
        self._deal = lru_cache(maxsize=4)(self._deal_block)
        self._order = lru_cache(maxsize=4 * len(self.sources))(self._shuffled_rows)

    def reached(self, position: int) -> np.ndarray:
        """How many examples of each source stand before a position where a block begins or ends, int64 ``(sources,)``."""
        stage = max(0, bisect_right(self._starts, position) - 1)
        return self._before[stage] + self._quotas[stage](position - self._starts[stage])

    def draws(self, positions: range) -> Draws:
        """What stands at the positions, in their order; a shard of them may be strided."""
        if not len(positions):
            empty = np.zeros(0, dtype=np.int64)
            return Draws(empty, empty, empty)
        if positions.step < 0:
            return Draws(*(array[::-1] for array in self.draws(positions[::-1])))
        parts = []
        place = positions.start
        while place < positions.stop:
            begin, end = self._block(place)
            sources, ranks = self._deal(begin, end)
            taken = range(place, min(end, positions.stop), positions.step)
            inside = slice(taken.start - begin, taken[-1] - begin + 1, positions.step)
            parts.append((sources[inside], ranks[inside]))
            place = taken[-1] + positions.step
        sources, ranks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        rows, templates = np.empty_like(ranks), np.empty_like(ranks)
        for number in np.unique(sources):
            chosen = np.flatnonzero(sources == number)
            rows[chosen], templates[chosen] = self._resolve(int(number), ranks[chosen])
        return Draws(sources, rows, templates)

    def counts(self, start: int, stop: int) -> list[np.ndarray]:
        """Exact number of examples of each source between two positions, one int64 array ``(templates,)`` a source.

        Only the blocks and epochs that the range cuts are replayed.
        """
        tables = [np.zeros(source.templates, dtype=np.int64) for source in self.sources]
        if start >= stop:
            return tables
        (first, first_end), (last, last_end) = self._block(start), self._block(stop - 1)
        if first == last:
            pieces = [(first, first_end, start, stop)]
        else:
            pieces = [(first, first_end, start, first_end), (last, last_end, last, stop)]
            for number, (low, high) in enumerate(zip(self.reached(first_end), self.reached(last), strict=True)):
                tables[number] += self._count_ranks(number, int(low), int(high))
        for begin, end, low, high in pieces:
            sources, ranks = (array[low - begin : high - begin] for array in self._deal(begin, end))
            for number in np.unique(sources):
                _, templates = self._resolve(int(number), ranks[sources == number])
                tables[number] += np.bincount(templates, minlength=len(tables[number]))
        return tables

    def _block(self, position: int) -> tuple[int, int]:
        """The first position of a position's block, and the first after it; a stage begins a block."""
        stage = bisect_right(self._starts, position) - 1
        start = self._starts[stage]
        begin = start + (position - start) // BLOCK * BLOCK
        end = begin + BLOCK
        return begin, min(end, self._starts[stage + 1]) if stage + 1 < len(self._starts) else end

    def _deal_block(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """For every position of a block: its source, and how many of that source's examples come before."""
        low, high = self.reached(begin), self._reached_at_end(begin, end)
        sources = np.repeat(np.arange(len(self.sources)), high - low)
        ranks = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
        order = generator(self.seed, "block", begin).permutation(end - begin)
        return sources[order], ranks[order]

    def _reached_at_end(self, begin: int, end: int) -> np.ndarray:
        stage = bisect_right(self._starts, begin) - 1
        return self._before[stage] + self._quotas[stage](end - self._starts[stage])

    def _resolve(self, number: int, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and templates of a source's examples by their rank."""
        epochs, places = np.divmod(ranks, self.sources[number].rows)
        rows = np.empty_like(ranks)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            rows[inside] = self._order(number, int(epoch))[places[inside]]
        return rows, self._templates[number].at(rows, epochs)

    def _count_ranks(self, number: int, low: int, high: int) -> np.ndarray:
        """Templates of a source's examples ``low`` to ``high - 1``: whole epochs by arithmetic, the others one by one."""
        size, table = self.sources[number].rows, self._templates[number]
        first, last = -(-low // size), high // size
        if first > last:
            loose = np.arange(low, high)
            whole = np.zeros(self.sources[number].templates, dtype=np.int64)
        else:
            loose = np.concatenate([np.arange(low, first * size), np.arange(last * size, high)])
            whole = table.count_epochs(first, last)
        _, templates = self._resolve(number, loose)
        return whole + np.bincount(templates, minlength=len(whole))

    def _shuffled_rows(self, number: int, epoch: int) -> np.ndarray:
        source = self.sources[number]
        return generator(self.seed, "rows", source.name, epoch).permutation(source.rows)


class _TemplateTable:
    """Which template a source's row has in which epoch: the row's usable ones in turn, from a start of the row's own.

    Starts are dealt evenly, so that within an epoch all templates are used equally often (where every row can use them).
    """

    def __init__(self, source: Source, seed: int) -> None:
        self._templates = source.templates
        self._first = generator(seed, "templates", source.name).permutation(source.rows)
        usable = np.ones((1, source.templates), dtype=bool)
        self._pattern = np.zeros(source.rows, dtype=np.int64)
        if source.usable is not None:
            usable, pattern = np.unique(source.usable, axis=0, return_inverse=True)
            self._pattern = pattern.reshape(-1)
        self._number = usable.sum(axis=1)  # (patterns,)
        self._order = np.argsort(~usable, axis=1, kind="stable")  # (patterns, templates), usable ones first

    def at(self, rows: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """The template of each row in each epoch."""
        pattern = self._pattern[rows]
        return self._order[pattern, (self._first[rows] + epochs) % self._number[pattern]]

    def count_epochs(self, first: int, last: int) -> np.ndarray:
        """How often each template is used in epochs ``first`` to ``last - 1``, int64 ``(templates,)``."""
        counts = np.zeros(self._templates, dtype=np.int64)
        for pattern, number in enumerate(self._number):
            starts = np.bincount(self._first[self._pattern == pattern] % number, minlength=number)
            for shift in range(number):
                epochs = (last - shift + number - 1) // number - (first - shift + number - 1) // number
                counts[self._order[pattern, :number]] += epochs * np.roll(starts, shift)
        return counts


def generator(*parts: object) -> np.random.Generator:
    """Random numbers that depend on nothing but these parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
