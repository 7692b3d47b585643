"""A constraint for extraction: spans copied from a text, in lists under headings.

    人名：张伟，李娜；公司：百度        heading, span, between, span, next heading, span

Like :class:`~mengzi_mt.data.constraints.SpanOf` it is an automaton over bytes. Beside the places of the text it has *literals*,
strings that the answer may write between spans (a heading, what stands between two spans): behind a literal's last byte a span
begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mengzi_mt.data.constraints import ANYWHERE, TEXT_END, Answers, Spans
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.pieces import Pieces


@dataclass(frozen=True)
class ListedSpans:
    """Spans of the example's shrinkable fields under headings, or ``nothing``.

    Attributes:
        headings: how an answer may begin.
        later: what may stand between two spans: a mark, or a further heading with what stands before it.
        nothing: the answer where there is no span.
    """

    headings: tuple[str, ...]
    later: tuple[str, ...]
    nothing: str

    def answers(self, example: TextExample, pieces: Pieces) -> Answers:
        """Those of one example."""
        texts = tuple(example.inputs[span.start : span.end] for span in example.shrinkable) or (example.inputs,)
        return _Listed(texts, self, pieces)


class _Listed(Spans):
    """The automaton: behind the places of the texts stand the literals, each with :data:`TEXT_END` after it."""

    def __init__(self, texts: Sequence[str], form: ListedSpans, pieces: Pieces) -> None:
        super().__init__(texts, None, pieces)
        self._over: dict[int, int] = {}  # place behind a literal's last byte -> where it leads
        self._later = [self._literal(text, ANYWHERE) for text in form.later]
        openings = [self._literal(text, ANYWHERE) for text in form.headings]
        openings.append(self._literal(form.nothing, None))
        self.ends[len(self.bytes) - 1] = len(self.raw)
        self.opening = tuple(openings)

    def _literal(self, text: str, leads: int | None) -> int:
        """Add a literal; the place of its first byte."""
        begin = len(self.bytes)
        self.bytes += self.pieces.normalise(text).encode() + bytes([TEXT_END])
        if leads is not None:
            self._over[len(self.bytes) - 1] = leads
        return begin

    def _from(self, place: int) -> Iterator[tuple[int, int]]:
        """The byte that goes on from a place, and where a span may end those that begin what may follow it."""
        begins = [place] if self.bytes[place] != TEXT_END else []
        if place in self.ends and place < self.texts_end:
            begins += self._later
        for begin in begins:
            yield self.bytes[begin], self._over.get(begin + 1, begin + 1)

    def text(self, tokens: Sequence[int]) -> str:
        """The answer as it was written, spans as the tokenizer normalises them."""
        written = b"".join(map(self.pieces.of, tokens)).decode(errors="ignore")
        return written.removeprefix(" ") if self.pieces.drops_first_blank else written
