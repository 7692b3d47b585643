"""Packing: tokenised examples laid side by side into rows of a few fixed lengths, best fit first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mengzi_mt.config import LengthSettings
from mengzi_mt.data.tokens import TokenizedExample


@dataclass(slots=True)
class PackedRow:
    """Examples that share one row, and what room is left on each side."""

    encoder_length: int
    decoder_length: int
    examples: list[TokenizedExample] = field(default_factory=list)
    encoder_left: int = 0
    decoder_left: int = 0

    def holds(self, example: TokenizedExample) -> bool:
        """Whether both sides of the example still fit."""
        return len(example.inputs) <= self.encoder_left and len(example.targets) <= self.decoder_left

    def add(self, example: TokenizedExample) -> None:
        """Lay one more example into the row."""
        self.examples.append(example)
        self.encoder_left -= len(example.inputs)
        self.decoder_left -= len(example.targets)


def pack(examples: Sequence[TokenizedExample], lengths: LengthSettings) -> list[PackedRow]:
    """Rows that hold all examples: longest first, each into the fullest row that still takes it (best-fit decreasing).

    An example belongs to the first row length that holds both of its sides, so short examples never pay for attention
    over long rows. Deterministic: ties keep the order of ``examples``.
    """
    open_rows: list[list[PackedRow]] = [[] for _ in lengths.rows]
    for example in sorted(examples, key=lambda item: -len(item.inputs)):
        number, (inputs, targets) = next(
            (number, row)
            for number, row in enumerate(lengths.rows)
            if len(example.inputs) <= row[0] and len(example.targets) <= row[1]
        )
        candidates = [row for row in open_rows[number] if row.holds(example)]
        if candidates:
            best = min(candidates, key=lambda row: row.encoder_left)
        else:
            best = PackedRow(inputs, targets, [], inputs, targets)
            open_rows[number].append(best)
        best.add(example)
    return [row for rows in open_rows for row in rows]


def micro_batches(rows: Sequence[PackedRow], tokens: int) -> Iterator[list[PackedRow]]:
    """Rows of one shape at a time, as many as ``tokens`` slots of both sides allow (always at least one)."""
    batch: list[PackedRow] = []
    for row in rows:
        shape = (row.encoder_length, row.decoder_length)
        if batch and ((batch[0].encoder_length, batch[0].decoder_length) != shape or (len(batch) + 1) * sum(shape) > tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
