"""What the downstream tasks answer with. Every result is a frozen record with ``to_dict()``, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """What all results have.

    Attributes:
        task: the task's name.
        templates: of the registry, through which the model was asked.
        cut: characters of the input that were left out because it was too long.
    """

    task: str
    templates: tuple[str, ...]
    cut: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, texts and numbers."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, kw_only=True)
class Classification(Result):
    """One of several labels.

    Attributes:
        label: the answer.
        probability: of the answer.
        probabilities: of every label, given that one of them is right; in the labels' order, they sum to one. Of several templates
            it is the normalised geometric mean; a majority of them may then name another label than the most probable one.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Relation(Classification):
    """What ``head`` is to ``tail``."""

    head: str
    tail: str


@dataclass(frozen=True)
class Entity:
    """A mention: ``text`` is ``source[start:end]``, counted in characters of the text that the caller gave."""

    type: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Entities(Result):
    """Entities in the order of the text, every mention of each.

    Attributes:
        entities: the mentions.
        unplaced: types and texts that the model wrote and that do not stand in the text.
        answer: what the model wrote, of each template.
    """

    entities: tuple[Entity, ...]
    unplaced: tuple[tuple[str, str], ...] = ()
    answer: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Span(Result):
    """A part of the text.

    Attributes:
        text: the answer, as the text writes it where it stands there.
        start: its first place in the text; None where it does not stand there.
        end: behind its last character, likewise.
        places: start and end of each place where it stands.
        log_probability: of the answer; None where it was not computed.
    """

    text: str
    start: int | None
    end: int | None
    places: tuple[tuple[int, int], ...]
    log_probability: float | None


@dataclass(frozen=True, kw_only=True)
class Keywords(Result):
    """A list of words; ``answer`` is what the model wrote."""

    keywords: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Candidate:
    """A text and its log-probability."""

    text: str
    log_probability: float | None


@dataclass(frozen=True, kw_only=True)
class Text(Result):
    """Generated text.

    Attributes:
        text: the answer.
        log_probability: of the answer with its end; None where it was not computed.
        finished: False where the limit of tokens cut it.
        candidates: all that a beam search finished, or of each template, the answer first.
    """

    text: str
    log_probability: float | None
    finished: bool
    candidates: tuple[Candidate, ...]
