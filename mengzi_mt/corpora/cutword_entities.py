"""Entities by the network of cutword (an LSTM with a CRF over characters, shipped in its wheel), as a component of spaCy's.

Better at names than the dictionary, and slow: what both are worth is measured in docs/pretraining-encoders.md.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Token

from mengzi_mt.corpora.jieba_pipeline import make_pipeline

KINDS = {"PERSON": "PERSON", "LOC": "LOC", "ORG": "ORG", "CREATION": "MISC"}
"""cutword's kinds to those of the other taggers. Its others (times, products, events, offices, terms …) are mostly common nouns."""
LONGEST = 400
"""Characters that are read at once at most: a line without a full stop may be a whole document, and the network is slow with it."""
VERSION = 1
"""Of what this module makes of cutword's answers."""


def make_cutword_pipeline(segmenter: str) -> Language:
    """Words of ``rjieba`` or ``jieba``, entities of cutword."""
    pipeline = make_pipeline(segmenter)
    pipeline.remove_pipe("mengzi_mt_entities")
    pipeline.add_pipe("mengzi_mt_cutword")
    return pipeline


@Language.factory("mengzi_mt_cutword")
class CutwordEntities:
    """Sets ``doc.ents``; a word that an entity cuts becomes two of the same part of speech."""

    def __init__(self, nlp: Language, name: str) -> None:
        import torch

        with _quiet():
            from cutword import NER

            self.network = NER(device=torch.device("cpu"))

    def __call__(self, doc: Doc) -> Doc:
        """The entities of one text."""
        return next(self.pipe([doc]))

    def pipe(self, docs: Iterable[Doc], batch_size: int = 64) -> Iterator[Doc]:
        """The entities of many texts, computed together."""
        source = iter(docs)
        while batch := list(islice(source, batch_size)):
            parts = [(number, start, text) for number, doc in enumerate(batch) for start, text in _parts(doc.text)]
            found: list[list[tuple[int, int, str]]] = [[] for _ in batch]
            with _quiet():
                answers = self.network.predict([text for *_, text in parts]) if parts else []
            for (number, start, text), answer in zip(parts, answers, strict=True):
                found[number] += [(start + a, start + b, kind) for a, b, kind in _named(text, answer)]
            for doc, entities in zip(batch, found, strict=True):
                yield _with_entities(doc, entities)

    def to_disk(self, path: Any, **_: Any) -> None:
        """Nothing is kept: the network is cutword's."""

    def from_disk(self, path: Any, **_: Any) -> CutwordEntities:
        """See :meth:`to_disk`."""
        return self


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a text, or pieces of them, with the place where each begins; blank ones are left out."""
    place = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), LONGEST):
            part = line[start : start + LONGEST]
            if part.strip():
                yield place + start, part
        place += len(line)


def _named(text: str, answer: Iterable[Any]) -> Iterator[tuple[int, int, str]]:
    """Names and where they stand, in order and apart. cutword drops blanks, so its own places only give the order."""
    behind = 0
    for item in sorted(answer, key=lambda one: int(one.begin)):
        kind = KINDS.get(item.ner_type_en)
        start = text.find(item.entity, behind) if kind and item.entity.strip() else -1
        if kind and start >= 0:
            behind = start + len(item.entity)
            yield start, behind, kind


def _with_entities(doc: Doc, entities: list[tuple[int, int, str]]) -> Doc:
    cuts = {place for start, stop, _ in entities for place in (start, stop)}
    with doc.retokenize() as retokenizer:
        for token in doc:
            inner = sorted(place - token.idx for place in cuts if token.idx < place < token.idx + len(token))
            if inner:
                _split(retokenizer, token, inner)
    spans = (doc.char_span(start, stop, label=kind) for start, stop, kind in entities)
    doc.ents = [span for span in spans if span is not None]
    return doc


def _split(retokenizer: Any, token: Token, places: list[int]) -> None:
    pieces = [token.text[start:stop] for start, stop in zip([0, *places], [*places, len(token)], strict=True)]
    attributes = {"POS": [token.pos_] * len(pieces), "TAG": [token.tag_] * len(pieces)}
    retokenizer.split(token, pieces, heads=[(token, 0)] * len(pieces), attrs=attributes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """cutword speaks on both streams while it loads and warns at every batch."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
