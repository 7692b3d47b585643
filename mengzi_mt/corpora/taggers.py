"""Taggers: what finds words, parts of speech and entities in a text, and which one is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mengzi_mt.corpora.alignment import TaggedText
from mengzi_mt.errors import InputError, first_line

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB",
    "X", "SPACE",
)  # fmt: skip
"""Universal parts of speech (universaldependencies.org/u/pos), and spaCy's SPACE."""
DEFAULT = "jieba"
CUTWORD = "cutword"
PREFERRED = ("zh_core_web_trf", "zh_core_web_lg", "zh_core_web_md", "zh_core_web_sm")
INSTALL = "pip install mengzi-mt[nlp]"


class Tagger(Protocol):
    """Finds words, parts of speech and entities.

    Attributes:
        name: says all that decides the tags.
        pos: labels of parts of speech.
        entities: kinds of entities.
    """

    name: str
    pos: tuple[str, ...]
    entities: tuple[str, ...]

    def tag(self, texts: Iterable[str]) -> Iterator[TaggedText]:
        """The tags of each text, in order."""


@dataclass
class SpacyTagger:
    """Tags from the ``Doc`` objects of a spaCy pipeline: tokens, ``pos_`` and ``ents``."""

    pipeline: Any
    name: str
    entities: tuple[str, ...]
    pos: tuple[str, ...] = UPOS

    def tag(self, texts: Iterable[str]) -> Iterator[TaggedText]:
        """See :class:`Tagger`.

        Raises:
            InputError: a pipeline that changes the text or names labels that it did not announce.
        """
        numbers = {label: number for number, label in enumerate(self.pos)}
        kinds = {label: number for number, label in enumerate(self.entities)}
        for doc, text in self.pipeline.pipe(((text, text) for text in texts), as_tuples=True, batch_size=64):
            if doc.text != text:
                raise InputError(f"The pipeline reads {doc.text[:30]!r} where the text is {text[:30]!r}", where=self.name)
            yield self._tags(doc, numbers, kinds)

    def _tags(self, doc: Any, numbers: dict[str, int], kinds: dict[str, int]) -> TaggedText:
        unknown = numbers["X"]
        words = [(token.idx, token.idx + len(token), numbers.get(token.pos_, unknown)) for token in doc]
        found = [(span.start_char, span.end_char, span.label_) for span in doc.ents]
        missing = {label for *_, label in found} - set(kinds)
        if missing:
            raise InputError(f"The pipeline names entities that it did not announce: {sorted(missing)}", where=self.name)
        return TaggedText(words, [(start, stop, kinds[label]) for start, stop, label in found])


def default_tagger() -> str:
    """The best that is installed: a Chinese pipeline of spaCy's, or the one over jieba that needs no download."""
    return next((name for name in PREFERRED if importlib.util.find_spec(name)), DEFAULT)


def load_tagger(name: str) -> Tagger:
    """The tagger of that name.

    Args:
        name: ``jieba`` (over rjieba where it is installed, else jieba), ``rjieba``, ``cutword`` (words as ``jieba``, entities by
            cutword's network), or a spaCy pipeline, by the name of its package or by its folder.

    Raises:
        InputError: spaCy, jieba, cutword or the pipeline is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise InputError("Tags are made by spaCy, which is not installed", where=f"--tagger {name}", fix=INSTALL) from error
    if name in ("jieba", "rjieba", CUTWORD):
        return _embedded(name)
    try:
        pipeline = spacy.load(name, exclude=["parser", "lemmatizer", "senter"])
    except Exception as error:  # spaCy raises OSError, ValueError and more for one cause
        raise InputError(
            f"The spaCy pipeline cannot be loaded: {first_line(error)}", where=f"--tagger {name}",
            fix=f"install it (python -m spacy download {name}), or leave --tagger out: the default, `{DEFAULT}`, needs no download",
        ) from error  # fmt: skip
    recogniser: Any = pipeline.get_pipe("ner") if "ner" in pipeline.pipe_names else None
    labels = recogniser.labels if recogniser else ()
    version = f"{pipeline.meta.get('name', name)} {pipeline.meta.get('version', '')}".strip()
    return SpacyTagger(pipeline, f"spacy {spacy.__version__}, {version}", tuple(sorted(labels)))


def _embedded(name: str) -> Tagger:
    from mengzi_mt.corpora.jieba_pipeline import ENTITIES, SEGMENTERS, VERSION, make_pipeline

    order = SEGMENTERS if name in (DEFAULT, CUTWORD) else (name,)
    segmenter = next((item for item in order if importlib.util.find_spec(item)), None)
    if segmenter is None:
        raise InputError(f"The tagger needs {' or '.join(order)}, which is not installed", where=f"--tagger {name}", fix=INSTALL)
    from importlib.metadata import version

    words = f"{segmenter} {version(segmenter)}"
    if name != CUTWORD:
        return SpacyTagger(make_pipeline(segmenter), f"{words}, rules {VERSION}", ENTITIES)
    if not importlib.util.find_spec(CUTWORD):
        raise InputError("cutword is not installed", where=f"--tagger {name}", fix="pip install cutword, or leave --tagger out")
    from mengzi_mt.corpora import cutword_entities

    pipeline = cutword_entities.make_cutword_pipeline(segmenter)
    return SpacyTagger(pipeline, f"{words}, cutword {version(CUTWORD)}, entities {cutword_entities.VERSION}", ENTITIES)
