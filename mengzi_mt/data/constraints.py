"""Constraints of generated answers: one of given choices, or text copied from a source, and strings at which to stop.

A copied answer need not have the tokens that the text has there: 中国 and 国家 are pieces of their own, and 国 inside of either
may be copied. So a constraint runs over bytes: a state is the set of places of the text at which the answer so far may end, and a
piece may follow where its bytes go on from one of them.

    text  我 爱 北 京        answer so far  爱        state {2}      may follow  北, 北京, end-of-sequence
          0  1  2  3  4                     爱北京    state {4}      may follow  end-of-sequence

The places are those of the text as the tokenizer normalises it; the answer that comes out is the text's own characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.pieces import Node, Pieces
from mengzi_mt.data.tokens import clean
from mengzi_mt.errors import InputError


class Course(Protocol):
    """What may follow what was generated so far, and whether to stop. A value: going on makes a new one."""

    @property
    def stopped(self) -> bool:
        """Whether nothing more shall be generated."""

    @property
    def allowed(self) -> Sequence[int] | None:
        """The tokens that may follow, at least one; None for all."""

    def after(self, token: int) -> Course:
        """The course once this token, not end-of-sequence, was generated."""


class Answers(Protocol):
    """The answers that one example may have."""

    @property
    def start(self) -> Course:
        """The course before the first token."""

    def text(self, tokens: Sequence[int]) -> str:
        """The answer that these tokens write, end-of-sequence left out."""


class Constraint(Protocol):
    """Which answers examples may have."""

    def answers(self, example: TextExample, pieces: Pieces) -> Answers:
        """Those of one example.

        Raises:
            InputError: there is none.
        """


_Tree = dict[int, "_Tree"]
"""Tokens that may follow, and what may follow each."""


@dataclass(frozen=True)
class OneOf:
    """The answer is one of the choices, or of the example's own. A choice is spelled as the tokenizer spells it."""

    choices: tuple[str, ...] | None = None

    def answers(self, example: TextExample, pieces: Pieces) -> Answers:
        """Those of one example."""
        choices = example.choices if self.choices is None else self.choices
        if not choices:
            raise InputError("There is no choice to generate", where=_place(example), fix="give choices, or generate freely")
        root: _Tree = {}
        texts: dict[tuple[int, ...], str] = {}
        end = pieces.encoder.eos
        for choice in choices:
            ids = pieces.encoder(choice)
            if not ids:
                raise InputError("A choice is empty once it is tokenised", where=f"{_place(example)}, choice {choice!r}")
            texts.setdefault(tuple(ids), choice)
            node = root
            for token in (*ids, end):
                node = node.setdefault(token, {})
        return _Choices(_ChoiceCourse(root), texts, pieces)


@dataclass(frozen=True, slots=True)
class _ChoiceCourse:
    """A node of the tree of choices."""

    node: _Tree
    stopped = False

    @property
    def allowed(self) -> Sequence[int]:
        return list(self.node)

    def after(self, token: int) -> _ChoiceCourse:
        return _ChoiceCourse(self.node[token])


@dataclass(frozen=True)
class _Choices:
    start: _ChoiceCourse
    texts: dict[tuple[int, ...], str]
    pieces: Pieces

    def text(self, tokens: Sequence[int]) -> str:
        known = self.texts.get(tuple(tokens))
        return b"".join(map(self.pieces.of, tokens)).decode(errors="ignore") if known is None else known


@dataclass(frozen=True)
class SpanOf:
    """The answer is copied from a text: some of its characters in a row.

    It does not begin or end with a blank. Cut by the limit of tokens it is still a part of the text.

    Attributes:
        texts: from which; by default the example's shrinkable fields, or its whole input where it has none.
        separator: between several copied parts; None for one part alone.
    """

    texts: tuple[str, ...] | None = None
    separator: str | None = None

    def answers(self, example: TextExample, pieces: Pieces) -> Answers:
        """Those of one example."""
        texts = self.texts
        if texts is None:
            texts = tuple(example.inputs[span.start : span.end] for span in example.shrinkable) or (example.inputs,)
        spans = Spans(texts, self.separator, pieces)
        if not spans.start.allowed:
            raise InputError(
                "The text holds nothing that could be copied", where=_place(example), fix="give a text, or generate freely"
            )
        return spans


State = tuple[int, ...]
_BEFORE_ALL = (-2,)
ANYWHERE = -1
"""Place from which the next byte may be any at which a part may begin."""
TEXT_END = 0xFF
"""Byte after each text; no UTF-8 text has it."""


@dataclass(frozen=True, slots=True)
class _SpanCourse:
    spans: Spans
    state: State
    stopped = False

    @property
    def allowed(self) -> Sequence[int]:
        return list(self.spans.options(self.state))

    def after(self, token: int) -> _SpanCourse:
        return _SpanCourse(self.spans, self.spans.options(self.state)[token])


class Spans:
    """The automaton of the parts of some texts.

    Places count the bytes of the texts, each with :data:`TEXT_END` after it, and then those of the separator.
    """

    def __init__(self, texts: Sequence[str], separator: str | None, pieces: Pieces) -> None:
        self.pieces = pieces
        self.separator = separator
        self.between = pieces.normalise(separator).encode() if separator else b""
        self.raw = ""
        self.begins: dict[int, int] = {}  # place at which a part may begin -> its character of `raw`
        self.ends: dict[int, int] = {}
        written = bytearray()
        for text in texts:
            for segment in _segments(clean(text), pieces):
                normal = pieces.normalise(segment).encode()
                if normal.strip():
                    self.begins[len(written)] = len(self.raw)
                    self.ends[len(written) + len(normal)] = len(self.raw) + len(segment)
                self.raw += segment
                written += normal
            written.append(TEXT_END)
        self.texts_end = len(written)
        self.bytes = bytes(written + self.between)
        self._by_first_byte: dict[int, list[int]] = {}
        for place in self.begins:
            self._by_first_byte.setdefault(self.bytes[place], []).append(place + 1)
        self.opening: State = (ANYWHERE,)
        self._known: dict[State, dict[int, State]] = {}

    @property
    def start(self) -> _SpanCourse:
        """The course before the first token."""
        return _SpanCourse(self, _BEFORE_ALL)

    def options(self, state: State) -> dict[int, State]:
        """The tokens that may follow, and the state after each; end-of-sequence where the answer may end, or must."""
        if state not in self._known:
            self._known[state] = self._options(state)
        return self._known[state]

    def _options(self, state: State) -> dict[int, State]:
        found: dict[int, State] = {}
        todo: list[tuple[Node, State]] = [(self.pieces.tree, state)]
        if state == _BEFORE_ALL:
            todo = [(self.pieces.first_tree, self.opening)]
            if self.pieces.drops_first_blank:
                found |= dict.fromkeys(self.pieces.first_tree.tokens, self.opening)
        while todo:
            node, places = todo.pop()
            for byte, following in self._steps(places).items():
                child = node.children.get(byte)
                if child is not None:
                    found |= dict.fromkeys(child.tokens, following)
                    if child.children:
                        todo.append((child, following))
        # without byte-fallback pieces a text may hold characters that cannot be written
        if any(place in self.ends for place in state) or (not found and state != _BEFORE_ALL):
            found[self.pieces.encoder.eos] = state
        return found

    def _steps(self, places: State) -> dict[int, State]:
        """The bytes that may follow, and the places after each."""
        found: dict[int, list[int]] = {}
        for place in places:
            if place == ANYWHERE:
                for byte, following in self._by_first_byte.items():
                    found.setdefault(byte, []).extend(following)
            else:
                for byte, after in self._from(place):
                    found.setdefault(byte, []).append(after)
        return {byte: tuple(sorted(set(following))) for byte, following in found.items()}

    def _from(self, place: int) -> Iterator[tuple[int, int]]:
        """The one byte that goes on from a place, and the separator's first where a part may end."""
        if self.bytes[place] != TEXT_END:
            yield self.bytes[place], ANYWHERE if place + 1 == len(self.bytes) else place + 1
        if place in self.ends and self.between:
            begin = len(self.bytes) - len(self.between)
            yield self.between[0], ANYWHERE if len(self.between) == 1 else begin + 1

    def text(self, tokens: Sequence[int]) -> str:
        """The copied characters; where the limit of tokens cut the answer, up to the last place where it might have ended."""
        written = b"".join(map(self.pieces.of, tokens))
        if self.pieces.drops_first_blank:
            written = written.removeprefix(b" ")
        ways: dict[int, tuple[tuple[str, ...], int]] = {ANYWHERE: ((), 0)}  # place -> parts before, where this one began
        answer: tuple[str, ...] = ()
        for byte in written:
            following: dict[int, tuple[tuple[str, ...], int]] = {}
            for place, (parts, begun) in ways.items():
                if place == ANYWHERE:
                    following |= {after: (parts, after - 1) for after in self._by_first_byte.get(byte, [])}
                    continue
                for possible, after in self._from(place):
                    if possible == byte:
                        leaves = place < self.texts_end and not 0 <= after < self.texts_end
                        following.setdefault(after, ((*parts, self._part(begun, place)), 0) if leaves else (parts, begun))
            ways = following
            ended = next((place for place in ways if place in self.ends), None)
            if ended is not None:
                parts, begun = ways[ended]
                answer = (*parts, self._part(begun, ended))
        return (self.separator or "").join(answer)

    def _part(self, begin: int, end: int) -> str:
        return self.raw[self.begins[begin] : self.ends[end]]


def _segments(text: str, pieces: Pieces) -> Iterator[str]:
    """The text cut between characters that normalisation does not join: a mark stays with the character before it."""
    segment = ""
    for character in text:
        if segment and not joins(character) and pieces.normalise(character):
            yield segment
            segment = ""
        segment += character
    if segment:
        yield segment


def joins(character: str) -> bool:
    """Whether Unicode's normalisation may put a character together with the one before it."""
    return unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff" or character in "\uff9e\uff9f"


def _place(example: TextExample) -> str:
    return f"task {example.task}, template {example.template}, row {example.row_id}"


@dataclass(frozen=True, slots=True)
class StopAt:
    """Stops once one of some strings was written, beside a constraint if there is one.

    Attributes:
        pieces: what tokens write.
        stops: the strings in bytes, as the tokenizer writes them.
        inner: the constraint's course.
        tail: the last bytes written.
    """

    pieces: Pieces
    stops: tuple[bytes, ...]
    inner: Course | None = None
    tail: bytes = b""
    stopped: bool = False

    @property
    def allowed(self) -> Sequence[int] | None:
        """Those of the constraint."""
        return self.inner.allowed if self.inner else None

    def after(self, token: int) -> StopAt:
        """The course once this token was generated."""
        written = self.tail + self.pieces.of(token)
        stopped = any(stop in written for stop in self.stops)
        tail = written[-max(map(len, self.stops)) :]
        return StopAt(self.pieces, self.stops, self.inner.after(token) if self.inner else None, tail, stopped)
