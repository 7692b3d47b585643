"""Rows of the registry's tasks as an encoder reads them: one text, a pair of texts, or a text with entities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, Row, load_rows
from mengzi_mt.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["sentence", "pair", "entities"]
Entity = tuple[int, int, str]
"""First character, the one behind the last, type."""
UNTAGGED = -100
"""Tag of special tokens."""


class TaskRow(NamedTuple):
    """One row; lists are (tokens,).

    Attributes:
        ids: special ones included.
        segments: 0 for the first text, 1 for the second.
        label: number of the class; 0 for entities.
        tags: BIO number of each token, :data:`UNTAGGED` of special ones; empty for classes.
        places: first character of each token and the one behind its last; empty for classes.
        entities: as the data has them, those behind a cut included; empty for classes.
    """

    ids: list[int]
    segments: list[int]
    label: int
    tags: list[int]
    places: list[tuple[int, int]]
    entities: frozenset[Entity]


@dataclass(frozen=True)
class TaskData:
    """A task's rows, ready to train on and to score.

    Attributes:
        labels: the classes, or the BIO tags of entities.
        provenance: of the two splits.
    """

    task: str
    kind: Kind
    labels: list[str]
    train: list[TaskRow]
    validation: list[TaskRow]
    provenance: dict[str, Any]


def task_kind(task: Task) -> tuple[Kind, list[str], str]:
    """What a task asks of an encoder, the fields of its texts, and the field of the answer.

    Raises:
        InputError: a zero-shot task, one without labels or entities, or one of more than two texts.
    """
    where = f"finetuning.tasks, {task.name}"
    if task.role == "zero_shot":
        raise InputError("A zero-shot task is never trained on", where=where, fix="choose a task of the role `train`")
    entities = [key for key, spec in task.fields.items() if spec.type == "entities"]
    texts = [key for key, spec in task.fields.items() if spec.type == "string" and not spec.optional]
    if entities:
        return "entities", ["text"], entities[0]
    label = next((key for key, spec in task.fields.items() if spec.type == "label" and not spec.labels), None)
    if label is None:
        raise InputError("The task has neither labels nor entities", where=where, fix="choose one that an encoder can answer")
    if len(texts) not in (1, 2):
        raise InputError(
            f"The task has {len(texts)} texts ({', '.join(texts)}); an encoder reads one or a pair", where=where,
            fix="choose another task",
        )  # fmt: skip
    return ("sentence" if len(texts) == 1 else "pair"), texts, label


def load_task_data(
    name: str, source: DataSource, tokenizer: PreTrainedTokenizerBase, rows: int, validation_rows: int, window: int, seed: int
) -> TaskData:
    """Read a task's training and validation splits.

    Args:
        name: of the task.
        source: where its files are.
        tokenizer: with the roles of an encoder's.
        rows: training rows at most, drawn by ``seed``.
        validation_rows: validation rows at most, the same for every seed.
        window: tokens of a row at most.
        seed: of the draw.

    Raises:
        InputError: an unknown or unfit task, missing files, rows without answers.
    """
    task = get_task(name)
    kind, texts, answer = task_kind(task)
    spec = task.fields[answer]
    words = list((task.label_set(spec.labels) or {}).values())
    labels = ["O", *(f"{part}-{word}" for word in words for part in "BI")] if kind == "entities" else words
    numbers = {label: number for number, label in enumerate(labels)}
    splits, provenance = {}, {}
    for split, most, draw in (("train", rows, seed), ("validation", validation_rows, 0)):
        found = load_rows(task, split, source)
        answered = [row for row in found if answer in row.values]
        if not answered:
            raise InputError(
                f"No row of the split {split!r} has an answer", where=f"task {name!r}, field {answer!r}",
                fix="use files with labels (--data-dir, --data-map)",
            )  # fmt: skip
        order = np.random.default_rng([draw, len(answered)]).permutation(len(answered))[:most]
        splits[split] = [_encoded(answered[number], kind, texts, answer, tokenizer, window, numbers) for number in sorted(order)]
        provenance[split] = found.provenance
    return TaskData(name, kind, labels, splits["train"], splits["validation"], provenance)


def _encoded(
    row: Row, kind: Kind, texts: Sequence[str], answer: str, tokenizer: Any, window: int, numbers: dict[str, int]
) -> TaskRow:
    given = [row.values[key] for key in texts]
    read = tokenizer(*given, truncation=True, max_length=window, return_offsets_mapping=True, return_token_type_ids=True)
    if kind != "entities":
        return TaskRow(read.input_ids, read.token_type_ids, row.values[answer], [], [], frozenset())
    text = given[0]
    inside = [one is not None for one in read.encodings[0].sequence_ids]
    places = [_without_blanks(text, *place) if own else (0, 0) for place, own in zip(read.offset_mapping, inside, strict=True)]
    entities = frozenset((span["start"], span["end"], span["type"]) for span in row.values[answer])
    tags = [tag if own else UNTAGGED for tag, own in zip(bio_tags(places, entities, numbers), inside, strict=True)]
    return TaskRow(read.input_ids, read.token_type_ids, 0, tags, places, entities)


def _without_blanks(text: str, start: int, stop: int) -> tuple[int, int]:
    """A piece may hold the blank before it, which is of no entity."""
    while start < stop and text[start].isspace():
        start += 1
    return start, stop


def bio_tags(places: Sequence[tuple[int, int]], entities: Iterable[Entity], numbers: dict[str, int]) -> list[int]:
    """A number for each token: B where an entity's first token is, I at its others, O elsewhere.

    A token is in an entity that holds at least half of its characters. Of entities that overlap the longest has the token; one
    that no token is left to is lost.
    """
    tags = [numbers["O"]] * len(places)
    for start, stop, kind in sorted(entities, key=lambda entity: (entity[0] - entity[1], entity)):
        first = True
        for number, (low, high) in enumerate(places):
            if high > low and 2 * (min(high, stop) - max(low, start)) >= high - low and tags[number] == numbers["O"]:
                tags[number] = numbers[f"{'B' if first else 'I'}-{kind}"]
                first = False
    return tags


def spans(places: Sequence[tuple[int, int]], tags: Sequence[str]) -> set[Entity]:
    """The entities that tags mark, in characters. An I that continues nothing of its type begins an entity, as in conlleval."""
    found: list[Entity] = []
    before = "O"
    for (low, high), tag in zip(places, tags, strict=True):
        part, _, kind = tag.partition("-")
        if part == "I" and before.partition("-")[2] == kind:
            found[-1] = (found[-1][0], high, kind)
        elif part != "O":
            found.append((low, high, kind))
        before = tag
    return set(found)


def exact_f1(predicted: Sequence[set[Entity]], gold: Sequence[frozenset[Entity]]) -> float:
    """Micro F1 over entities of equal first and last character and type; 0 where there are none."""
    right = sum(len(one & other) for one, other in zip(predicted, gold, strict=True))
    total = sum(map(len, predicted)) + sum(map(len, gold))
    return 2 * right / total if total else 0.0
