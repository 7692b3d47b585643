"""Long texts: the longest of an example's texts are cut at their ends until the whole prompt fits, short ones stay whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mengzi_mt.data.examples import TextExample
from mengzi_mt.errors import InputError

LONGEST_PIECE = 16
"""Characters that one piece of a tokenizer writes at most (SentencePiece's ``max_sentencepiece_length``): what lies behind so many
a token cannot fit."""

Texts = Mapping[str, str]
Encode = Callable[[str], list[int]]


def fit(texts: Texts, render: Callable[[Texts], TextExample], encode: Encode, limit: int) -> tuple[TextExample, int]:
    """The example of as much of the texts as fits into ``limit`` tokens, and the number of characters that were left out.

    Args:
        texts: by name.
        render: makes the example of them.
        encode: a text to ids.
        limit: tokens of the example's input at most.

    Raises:
        InputError: the prompt without the texts is too long already.
    """
    kept: Texts = {name: text[: LONGEST_PIECE * limit] for name, text in texts.items()}
    example = render(kept)
    if len(example.inputs.encode(errors="replace")) > limit and len(encode(example.inputs)) > limit:
        example, kept = _cut(kept, render, encode, limit)
    return example, sum(len(text) - len(kept[name]) for name, text in texts.items())


def _cut(texts: Texts, render: Callable[[Texts], TextExample], encode: Encode, limit: int) -> tuple[TextExample, Texts]:
    sizes = {name: len(encode(text)) for name, text in texts.items()}
    example = render(dict.fromkeys(texts, ""))
    budget = limit - len(encode(example.inputs))
    while budget > 0:
        level = water_level(list(sizes.values()), budget)
        kept = {name: text if sizes[name] <= level else head(text, encode, level) for name, text in texts.items()}
        example = render(kept)
        over = len(encode(example.inputs)) - limit
        if over <= 0:
            return example, kept
        budget -= over
    raise InputError(
        f"The prompt is longer than {limit} tokens before any text is in it",
        where=f"task {example.task}, template {example.template}",
        fix="load the model with a larger max_input, or give fewer or shorter labels",
    )


def water_level(sizes: list[int], budget: int) -> int:
    """The greatest level such that all sizes, none counted for more than the level, add up to at most the budget.

    >>> water_level([3, 10, 20], 19)
    8
    """
    left = budget
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return max(sizes)


def head(text: str, encode: Encode, tokens: int) -> str:
    """The beginning of a text, of at most so many tokens."""
    size = len(encode(text))
    while size > tokens and text:
        text = text[: min(len(text) - 1, len(text) * tokens // size)]
        size = len(encode(text))
    return text
