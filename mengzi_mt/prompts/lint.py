"""What can be said of templates beside rendering them: are two alike, does one give its answer away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations, cycle
from typing import Any

from mengzi_mt.conditions import compile_condition
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.trees import SEPARATOR

NEAR_DUPLICATE = 0.8
"""Similarity of two templates of one task from which they count as one."""
MASK = "\u25a1"
_FIRST, _LAST = 0xF0000, 0xFFFFD
"""The first private-use plane, which no text that people write has."""
_MASKED = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]+")
_STATEMENT = re.compile(r"\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_EXPRESSION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_SAID = re.compile(rf"[{chr(_FIRST)}-{chr(_LAST)}]|\W")


def own_words(template: Template) -> str:
    """The input part's own characters: expressions as one sign each, no statements, no blanks."""
    text = template.jinja.split(SEPARATOR)[0]
    return re.sub(r"\s+", "", _EXPRESSION.sub("◇", _STATEMENT.sub("", text)))


def similarity(a: str, b: str) -> float:
    """Twice the matching characters over all characters, 0 to 1 (difflib's ratio, no heuristics)."""
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= NEAR_DUPLICATE else matcher.quick_ratio()


def near_duplicates(templates: Sequence[Template]) -> Iterator[tuple[Template, Template, float]]:
    """Pairs of templates whose own words are (nearly) the same."""
    words = {template.id: own_words(template) for template in templates}
    for a, b in combinations(templates, 2):
        ratio = similarity(words[a.id], words[b.id])
        if ratio >= NEAR_DUPLICATE and not a.metadata.extra.get("deprecated") and not b.metadata.extra.get("deprecated"):
            yield a, b, ratio


def masked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same row with every letter and digit of its texts replaced; labels, indexes and numbers stay.

    The signs are private-use characters of which none occurs twice in the row, so that no part of one text looks like a
    part of another. Blanks and punctuation stay where they are, for templates that cut texts there.
    """
    signs = map(chr, cycle(range(_FIRST, _LAST + 1)))

    def mask(value: Any) -> Any:
        if isinstance(value, str):
            return "".join(next(signs) if character.isalnum() else character for character in value)
        if isinstance(value, list):
            return [mask(item) for item in value]
        if isinstance(value, dict):
            return {key: item if key == "type" else mask(item) for key, item in value.items()}
        return value

    return {key: mask(value) for key, value in values.items()}


def leaks(
    template: Template, rows: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]], gold: frozenset[str]
) -> tuple[list[str], int]:
    """Rows on which the input holds the answer although every field's text is masked.

    Real rows contain label words, so they cannot show whose words give an answer away. With masks, what is left in
    the input are the template's words and what it reads from gold fields. The target is given away where it
    stands in an input that lists not all the choices, and that depends on the answer: either it holds a masked text that is the
    target, or it reads a gold field and differs with it. Words that stand there on every row tell nothing.

    Args:
        template: bound to its task.
        rows: row id, the row, and the same with optional fields filled.
        gold: the fields that hold answers.

    Returns:
        The ids of the leaking rows, and the number of rows that could be tested.
    """
    seen: list[tuple[str, str, str]] = []
    inputs: dict[str, set[str]] = {}
    for row_id, row, padded in rows:
        try:
            if template.skip_if and compile_condition(template.skip_if)(row):
                continue
            prompt = template.render(masked(padded), row_id)
        except Exception:  # a template may compute with texts, which masks do not allow
            continue
        target = prompt.targets or ""
        listed = prompt.choices is not None and all(choice in prompt.inputs for choice in prompt.choices)
        inputs.setdefault(_numberless(prompt.inputs), set()).add(_numberless(target))
        says_something = bool(_SAID.sub("", target)) or bool(target and prompt.choices is None)
        seen.append(
            (row_id, _numberless(prompt.inputs), target if says_something and not listed and target in prompt.inputs else "")
        )
    varies = bool(template.compiled.input_names & gold) and len(inputs) > 1 and len(set().union(*inputs.values())) > 1
    found = [row_id for row_id, text, target in seen if target and (_MASKED.search(target) or (varies and len(inputs[text]) == 1))]
    return found, len(seen)


def _numberless(text: str) -> str:
    """Masked text as one sign: how long it is differs from row to row for no reason."""
    return re.sub(rf"\W*{MASK}[{MASK}\W]*", MASK, _MASKED.sub(MASK, text))


def named_choices(template: Template, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Choices that the template's own words name, longer ones first, so that 不是 does not count as 是 too."""
    words, named = own_words(template), []
    for choice in sorted(choices, key=len, reverse=True):
        if choice in words:
            named.append(choice)
            words = words.replace(choice, "◇")
    return tuple(named)


def check_condition(expression: str, row: Mapping[str, Any]) -> bool:
    """Whether a ``skip_if`` holds.

    Raises:
        InputError: it fails on this row.
    """
    try:
        return compile_condition(expression)(row)
    except Exception as error:  # an expression may fail in any way
        raise InputError(f"skip_if fails: {error}", where=expression, fix="correct it") from error
