"""Rows made up for a template: each field gets a value of the kind that the template's use of it asks for."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.template_usage import Usage

TEXT = (
    "the old bridge over quiet water leads Maria home where seven lamps burn and nobody knows why winter came early "
    "this year to Oslo although 42 trains were late again"
)
WORDS = TEXT.split()
SENTENCES = ("今天天气很好，我们去公园散步。", "这部电影 很 一般！", "价格：100元 {起} ||| 满减", "Ünïcödé — “quotes” & <tags>")
LONG = ("word " * 600, "字" * 3_000, "今天 " + "长" * 2_400, "x" * 2_040 + " tail of it that goes on and on")
LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")


class RowMaker:
    """Makes the values of one row; lists of a row have the same length, so that one index fits all."""

    def __init__(self, rng: random.Random, choices: list[str], wild: float = 0.0) -> None:
        self.rng = rng
        self.choices = choices
        self.length = rng.randint(2, 5)
        self.wild = wild

    def row(self, fields: Usage) -> dict[str, Any]:
        """A value for every field."""
        return {name: self.value(usage, 0) for name, usage in fields.keys.items() if not name.startswith("#")}

    def value(self, usage: Usage, depth: int) -> Any:
        """A value of the kind that its use asks for."""
        if depth > 6:
            return "deep"
        if self.rng.random() < self.wild:
            return self.any_value(usage, depth)
        if usage.pieces:
            return self.pieces(usage)
        if usage.member_of is not None:
            return self.member(usage.member_of)
        if usage.indexes_choices or usage.indexes or usage.lengths:
            return self.index(usage)
        if usage.item is not None and not usage.text:
            return self.items(usage, usage.item, depth)
        if usage.keys and not usage.text:
            if usage.keys.keys() <= {f"#{number}" for number in range(9)}:
                return [self.value(part, depth + 1) for part in usage.keys.values()]
            return {name: self.value(part, depth + 1) for name, part in usage.keys.items() if name[0] != "#"}
        if usage.mapping:
            return {word: self.text() for word in WORDS[: self.length]}
        return self.plain(usage)

    def plain(self, usage: Usage) -> Any:
        """Text or a number; mostly one of the values that the template compares with."""
        if usage.contains:
            return "".join(f"{self.text(short=True)} {part}" for part in usage.contains) + " end"
        values = [value for value in usage.values if value is not None]
        if values and self.rng.random() < 0.8:
            return self.rng.choice(values)
        if usage.digits:
            return str(self.rng.randint(0, 9))
        if usage.number and not usage.text:
            return self.rng.randint(0, max(self.length - 1, 1))
        if values and not usage.text and all(isinstance(value, (int, bool)) for value in values):
            return self.rng.randint(0, 3)
        return self.text()

    def items(self, usage: Usage, item: Usage, depth: int) -> list[Any]:
        """A list; one that is searched holds letters."""
        length = max(self.length, usage.least)
        if usage.labelled:
            return list(LETTERS[:length])
        return [self.value(item, depth + 1) for _ in range(length)]

    def member(self, container: Usage) -> Any:
        """Something that the list holds in which it is looked up."""
        if container.is_choices:
            return self.rng.choice(self.choices)
        values = container.item.values if container.item else []
        return self.rng.choice(values or LETTERS[: self.length])

    def index(self, usage: Usage) -> int | str:
        """An index or key that fits everything it is used on."""
        values = [value for value in usage.values if isinstance(value, str)]
        if values:
            return self.rng.choice(values)
        bounds = [len(self.choices)] if usage.indexes_choices else []
        bounds += usage.lengths + ([self.length] if usage.indexes else [])
        return self.rng.randrange(max(min(bounds), 1))

    def pieces(self, usage: Usage) -> str:
        """Text that splits into enough pieces."""
        separator, parts = next(iter(usage.pieces.items()))
        count = max(parts.least, self.length)
        return separator.join(self.text(short=True).replace(separator, "") or "piece" for _ in range(count))

    def text(self, short: bool = False) -> str:
        """Text, mostly a few words; sometimes Chinese, with `|||`, over 2,048 characters, or blank."""
        draw = self.rng.random()
        if short or draw < 0.5:
            return " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, 4)))
        if draw < 0.7:
            return " ".join(self.rng.choices(WORDS, k=self.rng.randint(5, 60))).capitalize() + ". "
        if draw < 0.85:
            return self.rng.choice(SENTENCES)
        return self.rng.choice(LONG) if draw < 0.95 else self.rng.choice(["", " ", "\n", "3", "2019-05-01", "a\tb\nc"])

    def any_value(self, usage: Usage, depth: int) -> Any:
        """A value of another kind, for templates whose use says too little."""
        kind = self.rng.randrange(8)
        inner = usage.item or Usage(keys=usage.keys, values=usage.values)
        if kind == 0:
            return self.rng.randint(0, 3)
        if kind == 1:
            return [self.value(inner, depth + 1) for _ in range(self.length)]
        if kind == 2 and usage.keys:
            return {name: self.value(part, depth + 1) for name, part in usage.keys.items()}
        if kind == 3 and usage.keys:
            return [{name: self.value(part, depth + 1) for name, part in usage.keys.items()} for _ in range(self.length)]
        if kind == 4:
            return self.rng.choice([True, False, None, 1.5])
        if kind == 5:
            return str(self.rng.randint(0, 4))
        if kind == 6:
            return self.rng.choice(LETTERS)
        return " ".join(self.rng.choices(WORDS, k=12))
