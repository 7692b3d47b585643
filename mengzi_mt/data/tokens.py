"""Tokens: a text example becomes ids within limits, and only fields marked as shrinkable are ever cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mengzi_mt.data.examples import TextExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Ids of one example, end-of-sequence included on both sides, and how many characters were cut to fit."""

    inputs: list[int]
    targets: list[int]
    weight: float
    task: str
    template: str
    row_id: str
    cut: int = 0


@dataclass(frozen=True)
class Limits:
    """Largest number of tokens of inputs and of targets, end-of-sequence included."""

    inputs: int
    targets: int


class Encoder:
    """Texts to ids with one tokenizer; the end-of-sequence id is added by the callers that need it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.eos = int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id or 0)

    def __call__(self, text: str) -> list[int]:
        """Ids of one text. No text becomes a special token: ``</s>`` in a row is spelled out.

        Lone surrogates, which no UTF-8 text has, become U+FFFD.
        """
        clean = text if text.isascii() or not _has_surrogate(text) else _without_surrogates(text)
        ids: list[int] = self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def inputs(self, example: TextExample, limit: int) -> tuple[list[int], int]:
        """Input ids with end-of-sequence, cut to ``limit`` where shrinkable text allows, and the characters cut."""
        return fit_inputs(example, self, limit, self.eos)

    def target(self, text: str) -> list[int]:
        """Target ids with end-of-sequence."""
        return [*self(text), self.eos]

    def example(self, example: TextExample, limits: Limits) -> TokenizedExample | None:
        """Both sides within the limits, or None where that would take cutting what must not be cut."""
        inputs, cut = self.inputs(example, limits.inputs)
        targets = self.target(example.targets)
        if len(inputs) > limits.inputs or len(targets) > limits.targets:
            return None
        return TokenizedExample(inputs, targets, example.weight, example.task, example.template, example.row_id, cut)


def fit_inputs(example: TextExample, encode: Encode, limit: int, eos: int) -> tuple[list[int], int]:
    """Input ids cut to at most ``limit`` tokens by shortening the shrinkable spans in proportion, each where it says.

    Where even empty spans do not make it fit, the ids come back longer than ``limit``: the instruction, the question
    and the choices are never cut.

    Returns:
        The ids with ``eos`` at the end, and the number of characters cut.
    """
    text = example.inputs
    ids = encode(text)
    total = sum(span.end - span.start for span in example.shrinkable)
    keep = total
    while len(ids) + 1 > limit and keep > 0:
        characters = len(example.inputs) - total + keep
        overflow = len(ids) + 1 - limit
        keep = max(0, keep - max(1, math.floor(overflow * characters / len(ids) * 0.9)))
        text = _shortened(example, keep, total)
        ids = encode(text)
    return [*ids, eos], len(example.inputs) - len(text)


def _shortened(example: TextExample, keep: int, total: int) -> str:
    """The inputs with at most ``keep`` of the ``total`` characters of the shrinkable spans."""
    pieces: list[str] = []
    last = 0
    for start, end, cut in example.shrinkable:
        kept = (end - start) * keep // total
        front = {"tail": kept, "head": 0, "middle": (kept + 1) // 2}[cut]
        pieces += [example.inputs[last : start + front], example.inputs[end - (kept - front) : end]]
        last = end
    return "".join([*pieces, example.inputs[last:]])


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
