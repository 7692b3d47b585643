"""Where a mention stands in the text that the caller gave.

A tokenizer normalises: ``ＡＢＣ`` is read as ``ABC``, ``，`` as ``,``, ``①`` as ``1``, and control characters vanish, so a model
writes something else than what stands there. Both sides are normalised in the same way (the tokenizer's, and NFKC, with which
answers are read back), and every normalised character remembers which characters it was made of:

    text        张 三 （ Ａ ① ）        mention  张三(A1)
    normalised  张 三 (  A  1  )        place    0 to 6
    places      0  1  2  3  4  5
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from mengzi_mt.data.constraints import joins
from mengzi_mt.data.tokens import clean
from mengzi_mt.sdk.results import Entity

Place = tuple[int, int]
"""Start and end in the caller's text."""

_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)
_UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp"}


class AlignedText:
    """A text beside its normal form."""

    def __init__(self, text: str, normalise: Callable[[str], str]) -> None:
        """Args:
        text: of the caller.
        normalise: what the tokenizer makes of a text.
        """
        self.text = text
        self.normalise = normalise
        bounds = [*self._segments(), len(text)]
        self.normal = ""
        self.starts: dict[int, int] = {}  # place of the normal form at which a segment begins -> its place in the text
        self.ends: dict[int, int] = {}
        for begin, end in pairwise(bounds):
            written = self._normal(text[begin:end])
            self.starts.setdefault(len(self.normal), begin)
            self.normal += written
            self.ends[len(self.normal)] = end

    def _segments(self) -> Iterator[int]:
        """Where a character begins that normalisation does not join to the one before it."""
        for number, match in enumerate(_CHARACTER.finditer(self.text)):
            if not number or (not joins(clean(match[0])) and self._normal(match[0])):
                yield match.start()

    def _normal(self, text: str) -> str:
        return unicodedata.normalize("NFKC", self.normalise(clean(text)))

    def places(self, mention: str) -> list[Place]:
        """Every place where the mention stands, from left to right, without overlaps.

        First as the tokenizer reads it, else without regard to case and blanks.
        """
        wanted = self._normal_of(mention)
        return self._found(self.normal, range(len(self.normal) + 1), wanted) or self._found(*self._loosely, _loose(wanted)[0])

    def _normal_of(self, mention: str) -> str:
        return AlignedText(mention, self.normalise).normal.strip() if mention.strip() else ""

    @property
    def _loosely(self) -> tuple[str, Sequence[int]]:
        return _loose(self.normal)

    def _found(self, normal: str, origins: Sequence[int], wanted: str) -> list[Place]:
        """Places of the wanted text in a normal form, whose characters come from ``origins`` of :attr:`normal`."""
        found: list[Place] = []
        at = normal.find(wanted) if wanted else -1
        while at >= 0:
            first, behind = origins[at], origins[at + len(wanted) - 1] + 1
            if first in self.starts and behind in self.ends:
                found.append(self._trimmed(self.starts[first], self.ends[behind]))
                at = normal.find(wanted, at + len(wanted))
            else:
                at = normal.find(wanted, at + 1)
        return found

    def _trimmed(self, start: int, end: int) -> Place:
        """Without unseen characters at its ends, which normalisation drops."""
        while start < end - 1 and unicodedata.category(self.text[end - 1]) in _UNSEEN:
            end -= 1
        while start < end - 1 and unicodedata.category(self.text[start]) in _UNSEEN:
            start += 1
        return start, end

    def entities(self, mentions: Iterable[tuple[str, str]]) -> tuple[list[Entity], list[tuple[str, str]]]:
        """Every place of some mentions, and the mentions without one.

        A place inside of a longer entity is left out, unless the mention stands nowhere else (北京 in 北京大学).

        Args:
            mentions: types and texts; repeated ones count once.
        """
        found: dict[tuple[str, str], list[Place]] = {one: self.places(one[1]) for one in dict.fromkeys(mentions)}
        inside = _inside_others({place for places in found.values() for place in places})
        entities: list[Entity] = []
        for (kind, _), places in found.items():
            alone = [place for place in places if place not in inside]
            entities += [Entity(kind, self.text[start:end], start, end) for start, end in alone or places]
        unplaced = [one for one, places in found.items() if not places]
        return sorted(set(entities), key=lambda one: (one.start, one.end, one.type)), unplaced


def _inside_others(places: set[Place]) -> set[Place]:
    """The places that lie inside of another one. By start, the longest first: what holds a place stands before it."""
    inside: set[Place] = set()
    furthest = -1
    for start, end in sorted(places, key=lambda place: (place[0], -place[1])):
        if end <= furthest:
            inside.add((start, end))
        furthest = max(furthest, end)
    return inside


def _loose(normal: str) -> tuple[str, list[int]]:
    """A normal form without blanks and case, and the origin of every character left."""
    kept = [(folded, at) for at, one in enumerate(normal) if not one.isspace() for folded in one.casefold()]
    return "".join(one for one, _ in kept), [at for _, at in kept]
