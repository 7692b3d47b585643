"""Statistics of the data: rows, balance of labels and lengths of every split, and what the files are licensed under."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mengzi_mt.data.at_hand import splits_at_hand
from mengzi_mt.data.texts import text_fields, text_keys
from mengzi_mt.tasks.rows import DataSource, Row, Rows, load_rows
from mengzi_mt.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATS_SCHEMA = "mengzi-mt/stats/1"
CountTokens = Callable[[list[str]], list[int]]
Stats = dict[str, Any]
BIN_EDGES = tuple(10 ** (step / 8) for step in range(33))
"""Edges of the length histograms' bins: eight for each power of ten, from 1 to 10,000."""
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def task_stats(task: Task, source: DataSource, count_tokens: CountTokens) -> Stats:
    """What a task's splits hold, one by one under ``splits`` and together.

    A split has ``rows``, ``groups`` (distinct values of ``group_by``), ``read``, ``skipped`` and ``bad`` records, ``official``
    (the official splits that the files are), ``labels`` (see :func:`label_balance`), ``characters`` and ``tokens`` (see
    :func:`lengths`). Of the two sides of a cut by hash, the one for validation has no counts of records, which were read
    once for both.
    A row's length is that of its text fields, without instruction and answer.

    Args:
        task: the task.
        source: where its rows come from.
        count_tokens: the numbers of tokens of texts.

    Raises:
        InputError: no split at hand, or a row that does not read.
    """
    keys = text_keys(task)
    parts: Stats = {}
    characters: list[int] = []
    tokens: list[int] = []
    for split in splits_at_hand(task, source):
        rows = load_rows(task, split, source)
        texts = ["\n".join(text_fields(keys, row.values).values()) for row in rows]
        characters += (of_split := [len(text) for text in texts])
        tokens += (counted := count_tokens(texts))
        parts[split] = {**split_stats(rows), "characters": lengths(of_split), "tokens": lengths(counted)}
    return {
        "task": task.name,
        "title": task.title.model_dump(),
        "category": task.category,
        "role": task.role,
        "version": task.version,
        "licence": task.licence.model_dump(),
        "rows": sum(part["rows"] for part in parts.values()),
        "skipped": sum(part["skipped"] or 0 for part in parts.values()),
        "bad": sum(part["bad"] or 0 for part in parts.values()),
        "labels": pooled_balance([part["labels"] for part in parts.values()]),
        "characters": lengths(characters),
        "tokens": lengths(tokens),
        "splits": parts,
    }


def split_stats(rows: Rows) -> Stats:
    """What one split holds but for its lengths; keys as in :func:`task_stats`."""
    task = rows.task
    second_side = rows.split == "validation" and "cut" in rows.provenance
    return {
        "rows": len(rows),
        "groups": len({group_of(task, row) for row in rows}),
        "read": None if second_side else rows.counts.read,
        "skipped": None if second_side else rows.counts.skipped,
        "bad": None if second_side else rows.counts.bad,
        "official": rows.provenance.get("official_split", [rows.split]),
        "cut": rows.provenance.get("cut"),
        "labels": label_balance(task, rows),
    }


def group_of(task: Task, row: Row) -> tuple[str, ...]:
    """The values by which rows belong together, or the row's own id."""
    return tuple(str(row.values.get(key, "")) for key in task.group_by) or (row.row_id,)


def label_balance(task: Task, rows: Iterable[Row]) -> dict[str, Stats]:
    """Counts of every label, per field that holds labels, types of entities or the place of the right choice.

    Beside ``counts`` (word to number, in the task's order) stand ``majority``, the share of the most frequent, and
    ``evenness``, the entropy over its largest value: 1 where all occur equally often, 0 where only one does.
    """
    counters: dict[str, Counter[str]] = {}
    for row in rows:
        for key, words in _gold_words(task, row):
            counters.setdefault(key, Counter()).update(words)
    return {key: _balance(_in_order(task, key, counter)) for key, counter in counters.items() if counter}


def _gold_words(task: Task, row: Row) -> Iterable[tuple[str, list[str]]]:
    for key, spec in task.fields.items():
        if key not in row.values:
            continue
        value = row.values[key]
        if spec.type == "label":
            yield key, [list((task.label_set(spec.labels) or {}).values())[value]]
        elif spec.type == "index":
            yield key, [str(value + 1)]
        elif spec.type == "entities":
            yield key, [span["type"] for span in value]


def _in_order(task: Task, key: str, counter: Counter[str]) -> dict[str, int]:
    spec = task.fields[key]
    if spec.type == "index":
        return {word: counter[word] for word in sorted(counter, key=int)}
    return {word: counter[word] for word in dict.fromkeys((task.label_set(spec.labels) or {}).values())}


def pooled_balance(parts: Iterable[dict[str, Stats]]) -> dict[str, Stats]:
    """The balance of several splits together."""
    pooled: dict[str, dict[str, int]] = {}
    for part in parts:
        for key, balance in part.items():
            counts = pooled.setdefault(key, {})
            for word, number in balance["counts"].items():
                counts[word] = counts.get(word, 0) + number
    return {key: _balance(counts) for key, counts in pooled.items()}


def _balance(counts: dict[str, int]) -> Stats:
    total = sum(counts.values())
    shares = [number / total for number in counts.values() if number]
    entropy = -sum(share * math.log(share) for share in shares)
    return {
        "counts": counts,
        "majority": max(shares),
        "evenness": entropy / math.log(len(counts)) if len(counts) > 1 else 0.0,
    }


def lengths(values: Sequence[int]) -> Stats:
    """Quantiles (the nearest value, none invented), the largest, the sum, and ``bins``: numbers per :data:`BIN_EDGES`.

    A length of 0 counts into the first bin, one beyond the last edge into the last.
    """
    if not values:
        return {**dict.fromkeys(_QUANTILES, 0), "max": 0, "sum": 0, "bins": [0] * (len(BIN_EDGES) - 1)}
    array = np.asarray(values, dtype=np.int64)
    quantiles = np.quantile(array, list(_QUANTILES.values()), method="inverted_cdf")
    bins, _ = np.histogram(array.clip(1, int(BIN_EDGES[-1])), bins=np.array(BIN_EDGES))
    return {
        **{name: int(value) for name, value in zip(_QUANTILES, quantiles, strict=True)},
        "max": int(array.max()),
        "sum": int(array.sum()),
        "bins": bins.tolist(),
    }


def token_counter(tokenizer: PreTrainedTokenizerBase, batch: int = 512) -> CountTokens:
    """Counts a tokenizer's tokens, without end-of-sequence; no text becomes a special token."""

    def count(texts: list[str]) -> list[int]:
        counts: list[int] = []
        for start in range(0, len(texts), batch):
            clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts[start : start + batch]]
            ids = tokenizer(clean, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False).input_ids
            counts += map(len, ids)
        return counts

    return count
