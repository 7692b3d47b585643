"""Streams: the tokenised examples of a mixture's positions, made on the fly or read back, the same either way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mengzi_mt.data.mixture import Mixture
from mengzi_mt.data.prepared import PreparedTask
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.errors import InputError

_AT_ONCE = 256


class ExampleStream(Protocol):
    """Tokenised examples by position: a pure function of it."""

    def examples(self, start: int, stop: int) -> list[TokenizedExample | None]:
        """The examples at positions ``start`` to ``stop - 1``; None for one that does not fit the limits."""
        ...


class OnTheFly:
    """Renders and tokenises when asked."""

    def __init__(self, mixture: Mixture, encoder: Encoder, limits: Limits) -> None:
        self.mixture = mixture
        self.encoder = encoder
        self.limits = limits

    def examples(self, start: int, stop: int) -> list[TokenizedExample | None]:
        """See :class:`ExampleStream`.

        Raises:
            InputError: a template that fails on a row.
        """
        found: list[TokenizedExample | None] = []
        for first in range(start, stop, _AT_ONCE):
            texts = list(self.mixture.examples(first, min(stop, first + _AT_ONCE)))
            found += self.encoder.examples(texts, self.limits)
        return found


class Prepared:
    """Reads what ``mengzi-mt prepare`` wrote.

    Args:
        mixture: says what stands at a position.
        tasks: the prepared examples of its pools, in their order (:func:`mengzi_mt.data.prepared.open_prepared`).

    Raises:
        InputError: they are of other pools.
    """

    def __init__(self, mixture: Mixture, tasks: Sequence[PreparedTask]) -> None:
        self.mixture = mixture
        self.tasks = list(tasks)
        if [task.plan.pool for task in tasks] != mixture.pools:
            raise InputError("The prepared examples are not those of this mixture", fix="plan them from the mixture's own pools")

    def examples(self, start: int, stop: int) -> list[TokenizedExample | None]:
        """See :class:`ExampleStream`.

        Raises:
            RunError: a damaged shard.
        """
        drawn = zip(*(array.tolist() for array in self.mixture.draws(range(start, stop))), strict=True)
        return [self._example(*place) for place in drawn]

    def _example(self, number: int, row: int, template: int) -> TokenizedExample | None:
        found = self.tasks[number].example(row, template)
        if found is None:
            return None
        inputs, targets, cut = found
        pool = self.mixture.pools[number]
        return TokenizedExample(inputs, targets, 1.0, pool.task.name, pool.templates[template].name, pool.rows[row].row_id, cut)
