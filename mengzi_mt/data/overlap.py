"""Overlap: which evaluation texts stand, whole or nearly so, in what a model is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mengzi_mt.data.at_hand import splits_at_hand
from mengzi_mt.data.corpus import read_corpus
from mengzi_mt.data.ngrams import Kind, NgramIndex, build_index, find_matches
from mengzi_mt.data.texts import every_text, han, text_fields, text_keys
from mengzi_mt.data.view import TaskView, file_hashes, files_of, sha256
from mengzi_mt.errors import InputError
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.tasks.task import Task

OVERLAP_SCHEMA = "mengzi-mt/overlap/1"
EXCERPT = 40
FEW_CHARACTERS = 4
"""Texts of fewer different Han characters (a laugh, a cheer) say nothing of a row and are not compared."""
_BATCH = 2_000_000
_KINDS: tuple[Kind, ...] = ("equal", "contained", "near")
Report = dict[str, Any]
Advance = Callable[[int], None]
"""Told how many more rows were compared."""


@dataclass(frozen=True)
class OverlapSettings:
    """What counts as overlap.

    Attributes:
        min_han: texts with fewer Han characters are not compared.
        ngram: characters of an n-gram.
        share: part of a text's different n-grams that one training row must have for a near match.
    """

    min_han: int = 8
    ngram: int = 8
    share: float = 0.6

    def __post_init__(self) -> None:
        if not 2 <= self.ngram <= self.min_han:
            raise InputError(
                f"n-grams of {self.ngram} characters cannot be found in texts of {self.min_han}", where="--ngram, --min-han",
                fix="give --ngram at least 2 and at most --min-han",
            )  # fmt: skip
        if not 0 < self.share <= 1:
            raise InputError(f"The share is {self.share}", where="--share", fix="give a number above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluation text stands."""

    task: str
    split: str
    row_id: str
    field: str


@dataclass
class EvaluationTexts:
    """The distinct normalised texts that are looked for, with all places of each.

    Attributes:
        numbers: the number of each text.
        excerpts: the beginning of each as one of the rows writes it.
        places: where each stands.
        rows: rows of each task and split.
        too_short: places of each task whose text has too few Han characters to be compared.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    excerpts: list[str] = field(default_factory=list)
    places: list[list[Place]] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    too_short: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, place: Place, min_han: int) -> None:
        """Take up one field's text."""
        normal = han(text)
        if len(normal) < min_han or len(set(normal)) < FEW_CHARACTERS:
            self.too_short[place.task] += bool(normal)
            return
        number = self.numbers.setdefault(normal, len(self.numbers))
        if number == len(self.places):
            self.places.append([])
            self.excerpts.append(text[:EXCERPT])
        self.places[number].append(place)


@dataclass(frozen=True, slots=True)
class Hit:
    """An evaluation text found in a training row."""

    row_id: str
    text: int
    kind: Kind
    share: float


@dataclass(frozen=True)
class Compared:
    """A training task or a corpus, its hits in the order of its rows, and what its files were."""

    name: str
    kind: Literal["task", "corpus"]
    rows: int
    hits: list[Hit]
    files: dict[str, str] | None
    version: int | None = None


def evaluation_texts(tasks: Iterable[Task], source: DataSource, settings: OverlapSettings) -> EvaluationTexts:
    """Every text of the tasks' rows that is no answer, over every split at hand, unlabelled and hidden-test ones included.

    Raises:
        InputError: a task without files, or a row that does not read.
    """
    texts = EvaluationTexts()
    for task in tasks:
        texts.rows[task.name] = {}
        keys = text_keys(task)
        for split in splits_at_hand(task, source):
            rows = load_rows(task, split, source)
            texts.rows[task.name][split] = len(rows)
            for row in rows:
                for key, text in text_fields(keys, row.values).items():
                    texts.add(text, Place(task.name, split, row.row_id, key), settings.min_han)
    return texts


def index_texts(texts: EvaluationTexts, settings: OverlapSettings) -> NgramIndex:
    """The index of the evaluation texts."""
    return build_index(list(texts.numbers), settings.ngram, settings.share)


def compare_task(index: NgramIndex, task: Task, source: DataSource, advance: Advance) -> Compared:
    """Compare every split at hand of a training task, each row once.

    Raises:
        InputError: no split at hand, or a row that does not read.
    """
    splits = splits_at_hand(task, source)
    ids: dict[str, None] = {}

    def rows() -> Iterator[tuple[str, Iterable[str]]]:
        for split in splits:
            for row in load_rows(task, split, source):
                if row.row_id not in ids:
                    ids[row.row_id] = None
                    yield row.row_id, every_text(row.values)

    hits = list(find_hits(index, rows(), advance))
    return Compared(task.name, "task", len(ids), hits, file_hashes(task, source, files_of(ids)), task.version)


def compare_corpus(index: NgramIndex, path: Path, advance: Advance) -> Compared:
    """Compare a corpus; a row is a document, its id ``file:line``.

    Raises:
        InputError: as :func:`mengzi_mt.data.corpus.read_corpus`.
    """
    count = 0

    def rows() -> Iterator[tuple[str, Iterable[str]]]:
        nonlocal count
        for number, text in read_corpus(path):
            count += 1
            yield f"{path.name}:{number}", [text]

    hits = list(find_hits(index, rows(), advance))
    return Compared(path.name, "corpus", count, hits, {path.name: sha256(path)})


def find_hits(index: NgramIndex, rows: Iterable[tuple[str, Iterable[str]]], advance: Advance) -> Iterator[Hit]:
    """The hits of rows (id and texts as written), in the rows' order, a batch at a time."""
    ids: list[str] = []
    batch: list[list[str]] = []
    size = 0

    def matches() -> Iterator[Hit]:
        for match in find_matches(index, batch):
            yield Hit(ids[match.row], match.text, match.kind, match.share)

    for row_id, texts in rows:
        normal = [text for text in dict.fromkeys(map(han, texts)) if len(text) >= index.n]
        ids.append(row_id)
        batch.append(normal)
        size += sum(map(len, normal)) + 1
        if size >= _BATCH:
            yield from matches()
            advance(len(ids))
            ids, batch, size = [], [], 0
    yield from matches()
    advance(len(ids))


def make_report(
    texts: EvaluationTexts, compared: Sequence[Compared], not_compared: Sequence[dict[str, str]], about: dict[str, Any]
) -> Report:
    """The whole result as JSON: settings, what was compared, a summary, the texts that were found, every hit."""
    found = sorted({hit.text for side in compared for hit in side.hits})
    row_texts = texts_of_rows(texts)
    distinct = Counter(task for places in texts.places for task in {place.task for place in places})
    return {
        "schema": OVERLAP_SCHEMA,
        **about,
        "evaluation": {
            task: {"rows": rows, "texts": distinct[task], "too_short": texts.too_short[task]} for task, rows in texts.rows.items()
        },
        "training": [
            {
                "name": side.name, "kind": side.kind, "version": side.version, "rows": side.rows,
                "rows_with_hits": len({hit.row_id for hit in side.hits}), "files": side.files,
            }
            for side in compared
        ],
        "not_compared": list(not_compared),
        "summary": [line for side in compared for line in summarise(texts, row_texts, side)],
        "texts": [_found_text(texts, number) for number in found],
        "hits": [
            {"training": side.name, "row": hit.row_id, "text": hit.text, "kind": hit.kind, "share": round(hit.share, 4)}
            for side in compared
            for hit in side.hits
        ],
    }  # fmt: skip


def _found_text(texts: EvaluationTexts, number: int) -> dict[str, Any]:
    places = [{"task": p.task, "split": p.split, "row": p.row_id, "field": p.field} for p in texts.places[number]]
    return {"text": number, "excerpt": texts.excerpts[number], "places": places}


def summarise(texts: EvaluationTexts, row_texts: dict[tuple[str, str], set[int]], side: Compared) -> list[dict[str, Any]]:
    """One line for each evaluation task that the training side has texts of.

    ``texts`` counts distinct evaluation texts by the closest kind found, ``evaluation_rows`` the rows by split that have such
    a text, ``whole_rows`` those of them whose compared texts all stand in one training row (a pair with both its sides).
    """
    by_row: dict[str, dict[int, Kind]] = defaultdict(dict)
    for hit in side.hits:
        by_row[hit.row_id][hit.text] = hit.kind
    training_rows: Counter[str] = Counter()
    kinds: dict[str, dict[int, int]] = defaultdict(dict)
    whole: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for found in by_row.values():
        training_rows.update({place.task for text in found for place in texts.places[text]})
        for text, kind in found.items():
            for place in texts.places[text]:
                closest = kinds[place.task]
                closest[text] = min(closest.get(text, len(_KINDS)), _KINDS.index(kind))
                if row_texts[place.task, place.row_id] <= found.keys():
                    whole[place.task].add((place.split, place.row_id))
    lines = []
    for task, closest in sorted(kinds.items()):
        hit_rows = {(place.split, place.row_id) for text in closest for place in texts.places[text] if place.task == task}
        of_kind = Counter(closest.values())
        counts = {"all": len(closest)} | {kind: of_kind[rank] for rank, kind in enumerate(_KINDS)}
        lines.append(
            {
                "training": side.name, "evaluation": task, "training_rows": training_rows[task],
                "texts": counts,
                "evaluation_rows": dict(Counter(split for split, _ in sorted(hit_rows))),
                "whole_rows": dict(Counter(split for split, _ in sorted(whole[task]))),
            }
        )  # fmt: skip
    return sorted(lines, key=lambda line: -line["training_rows"])


def texts_of_rows(texts: EvaluationTexts) -> dict[tuple[str, str], set[int]]:
    """The compared texts of every evaluation row, by task and row id."""
    rows: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, places in enumerate(texts.places):
        for place in places:
            rows[place.task, place.row_id].add(number)
    return rows


def task_views(compared: Iterable[Compared]) -> dict[str, TaskView]:
    """What a filtered view says of the compared tasks: every row with a hit is left out. Corpora are in no view."""
    return {
        side.name: TaskView(frozenset(hit.row_id for hit in side.hits), side.files, side.version)
        for side in compared
        if side.kind == "task"
    }
