"""Ranking choices: what scoring has in common whatever the model, from examples to batches and back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mengzi_mt.data.choice_trees import ChoiceTree, choice_tree
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.framed_tokens import check_choices, with_unknown_tokens
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.conventions import Convention, Ids
from mengzi_mt.evaluation.normalisation import ChoiceScores


class Choices(NamedTuple):
    """The choices of an example: their scored ids, as a tree too, and the places of those with unknown tokens."""

    ids: tuple[Ids, ...]
    tree: ChoiceTree
    unknown: tuple[int, ...]


class Prepared(NamedTuple):
    """One example as ids: its place in the caller's order, its input, its choices."""

    place: int
    inputs: list[int]
    choices: Choices
    cut: int

    @property
    def tree(self) -> ChoiceTree:
        """The choices as a tree."""
        return self.choices.tree

    @property
    def size(self) -> int:
        """Tokens of the input and nodes of the tree."""
        return len(self.inputs) + self.tree.nodes


class Ranker(ABC):
    """Scores choices with one model. Batch size, order and neighbours of the examples do not change the scores.

    Attributes:
        convention: what is read and what is scored.
    """

    def __init__(self, convention: Convention, *, start: int, max_input: int, batch_size: int, batch_tokens: int) -> None:
        """Args:
        convention: what is read and what is scored.
        start: id at the root of the choices' trees.
        max_input: input tokens, special ones included; shrinkable text is cut to fit.
        batch_size: examples of a forward pass at most.
        batch_tokens: input tokens and tree nodes of a forward pass at most (always at least one example).
        """
        self.convention = convention
        self.max_input = max_input
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.start = start
        # of no method of this object: a model that is dropped must be free at once, not when garbage is collected
        self._made = lru_cache(maxsize=4_096)(partial(_make_choices, convention.tokenizer, start))

    def score(self, examples: Sequence[TextExample], advance: Callable[[int], None] | None = None) -> list[ChoiceScores]:
        """Scores of every example's choices, in the examples' order.

        Args:
            examples: all with choices; their numbers of choices may differ.
            advance: called with the number of examples finished, after each batch.

        Raises:
            InputError: an example without choices, an empty choice, or choices that the tokenizer cannot tell apart.
        """
        prepared = [self._prepare(place, example) for place, example in enumerate(examples)]
        results: list[ChoiceScores | None] = [None] * len(examples)
        for batch in self._batches(prepared):
            began = time.perf_counter()
            scored = self._log_probabilities(batch)
            pace = (time.perf_counter() - began) / sum(item.size for item in batch)
            for item, scores in zip(batch, scored, strict=True):
                results[item.place] = ChoiceScores(
                    tuple(scores),
                    tuple(len(ids) for ids in item.choices.ids),
                    tuple(len(choice) for choice in examples[item.place].choices or ()),
                    cut=item.cut,
                    seconds=pace * item.size,
                    unknown=item.choices.unknown,
                )
            if advance:
                advance(len(batch))
        return [result for result in results if result is not None]

    @abstractmethod
    def _log_probabilities(self, batch: Sequence[Prepared]) -> list[list[float]]:
        """Of every example's choices."""

    def _prepare(self, place: int, example: TextExample) -> Prepared:
        where = f"task {example.task}, template {example.template}"
        if not example.choices:
            raise InputError(
                "An example without choices cannot be ranked",
                where=f"{where}, row {example.row_id}",
                fix="evaluate this template by generation",
            )
        encoded = self.convention.encode(example, self.max_input)
        return Prepared(place, encoded.inputs, self._made(example.choices, encoded.choices, where), encoded.cut)

    def _fits(self, batch: Sequence[Prepared], item: Prepared, held: int) -> bool:
        """Whether the item may join the batch, whose inputs and trees hold so many tokens."""
        return len(batch) < self.batch_size and held + item.size <= self.batch_tokens

    def _batches(self, prepared: list[Prepared]) -> Iterator[list[Prepared]]:
        """Examples of like length together, within the budgets of examples and of tokens."""
        batch: list[Prepared] = []
        held = 0
        first_seen: dict[int, int] = {}
        for item in prepared:
            first_seen.setdefault(id(item.tree), item.place)
        for item in sorted(prepared, key=lambda one: (len(one.inputs), one.tree.nodes, first_seen[id(one.tree)], one.place)):
            if batch and not self._fits(batch, item, held):
                yield batch
                batch, held = [], 0
            batch.append(item)
            held += item.size
        if batch:
            yield batch


def _make_choices(
    tokenizer: PreTrainedTokenizerBase, start: int, texts: tuple[str, ...], ids: tuple[Ids, ...], where: str
) -> Choices:
    check_choices(tokenizer, texts, ids, where)
    return Choices(ids, choice_tree(ids, start), tuple(with_unknown_tokens(tokenizer, ids)))
