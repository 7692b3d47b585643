"""Batches of an encoder: the windows of a step, sorted by length and cut into padded forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mengzi_mt.data.denoising import damage, mean_one
from mengzi_mt.pretraining.encoder_examples import UNKNOWN, EncoderExample, EncoderStream


@dataclass(frozen=True)
class EncoderBatch:
    """One forward pass over ``rows`` rows of ``length`` tokens; places count through the flattened rows.

    Attributes:
        input_ids, segments: ``(rows, length)`` int64.
        mask: ``(rows, length)`` boolean, true where there is no padding.
        restored, originals: ``(masked,)`` places of the tokens to restore, and their ids.
        weights: ``(masked,)`` float32, what each of these counts in the loss; 1 on average over a step.
        tagged: ``(text,)`` places of the text's tokens.
        pos, ner: ``(text,)`` their tags; empty where the corpus is not tagged.
        ordered, orders: ``(pairs,)`` rows with two segments, and whether these are as they were (0) or not (1).
        tokens: without padding.
        squares: sum of the squared lengths, for the arithmetic of attention.
    """

    input_ids: Tensor
    segments: Tensor
    mask: Tensor
    restored: Tensor
    originals: Tensor
    weights: Tensor
    tagged: Tensor
    pos: Tensor
    ner: Tensor
    ordered: Tensor
    orders: Tensor
    tokens: int
    squares: int

    def to(self, device: torch.device) -> EncoderBatch:
        """The same on a device."""
        moved = {item.name: getattr(self, item.name) for item in fields(self) if isinstance(getattr(self, item.name), Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in moved.items()})


@dataclass(frozen=True)
class EncoderStep:
    """The forward passes of an optimiser step, and how many predictions each objective has in all of them.

    Of ``consistency`` there is one a row.
    """

    batches: list[EncoderBatch]
    predictions: dict[str, int]
    examples: int

    @property
    def tokens(self) -> int:
        """Without padding."""
        return sum(batch.tokens for batch in self.batches)

    def count(self, name: str) -> int:
        """Of an objective's predictions; what is no objective has a loss at each token."""
        return self.predictions.get(name, self.tokens)

    @property
    def text(self) -> int:
        """Tokens of the text alone, without special ones."""
        return sum(len(batch.tagged) for batch in self.batches)

    @property
    def slots(self) -> int:
        """With padding."""
        return sum(batch.input_ids.numel() for batch in self.batches)


@dataclass(frozen=True)
class EncoderStepMaker:
    """The batch of a step as a pure function of its number; the step reads a block of ``batch`` positions."""

    stream: EncoderStream
    batch: int
    micro_batch_tokens: int

    def __call__(self, step: int) -> EncoderStep:
        """The batch of one step (the first is 0)."""
        examples = self.stream.examples(step * self.batch, (step + 1) * self.batch)
        instance = self.stream.objectives.instance
        weights = damage_weights(examples, instance.damage, instance.most) if instance.damage else None
        return make_step(examples, self.micro_batch_tokens, self.stream.ids.pad, weights)


def damage_weights(examples: Sequence[EncoderExample], power: float, most: float) -> np.ndarray:
    """``damage ** power`` of each row as its weight, 1 on average over the step's predictions; float64 ``(examples,)``.

    Every chosen token counts as noise, whatever is read in its place: the model is not told which of them to trust. Distances are
    those in the text as it is read, without the special tokens.
    """
    text = np.array([np.count_nonzero(example.text) for example in examples])
    chosen = np.concatenate([example.chosen[example.text] for example in examples])
    counts = np.array([np.count_nonzero(example.chosen) for example in examples])
    return mean_one(damage(chosen, text) ** power, counts, most)


def make_step(
    examples: Sequence[EncoderExample], micro_batch_tokens: int, pad: int, weights: np.ndarray | None = None
) -> EncoderStep:
    """Sort by length, the longest first, and cut into passes of at most so many tokens, padding included.

    Args:
        examples: of the step.
        micro_batch_tokens: one example may be longer and then has a pass of its own.
        pad: id of padding.
        weights: what each example's predictions count; 1 by default.
    """
    order = sorted(range(len(examples)), key=lambda number: -len(examples[number].read))
    ordered = [examples[number] for number in order]
    counted = np.ones(len(examples)) if weights is None else weights[order]
    batches: list[EncoderBatch] = []
    while ordered:
        rows = max(1, micro_batch_tokens // len(ordered[0].read))
        batches.append(collate(ordered[:rows], pad, counted[:rows]))
        ordered, counted = ordered[rows:], counted[rows:]
    names = {"mlm": "restored", "pos": "pos", "ner": "ner", "order": "orders"}
    predictions = {name: sum(len(getattr(batch, key)) for batch in batches) for name, key in names.items()}
    return EncoderStep(batches, {**predictions, "consistency": len(examples)}, len(examples))


def collate(examples: Sequence[EncoderExample], pad: int, weights: np.ndarray) -> EncoderBatch:
    """Rows of one length, filled up with ``pad``; ``weights`` are those of the rows."""
    lengths = np.array([len(example.read) for example in examples])
    shape = (len(examples), int(lengths.max()))
    there = np.arange(shape[1]) < lengths[:, None]

    def padded(name: str, fill: int, dtype: type) -> np.ndarray:
        filled: np.ndarray = np.full(shape, fill, dtype=dtype)
        filled[there] = np.concatenate([getattr(example, name) for example in examples])
        return filled

    restored = np.flatnonzero(padded("chosen", 0, bool))
    tagged = np.flatnonzero(padded("text", 0, bool))
    is_tagged = examples[0].pos is not None
    pos, ner = (padded(name, 0, np.int64).ravel()[tagged] if is_tagged else np.zeros(0, np.int64) for name in ("pos", "ner"))
    orders = np.array([example.order for example in examples])
    pairs = np.flatnonzero(orders != UNKNOWN)
    arrays = [
        padded("read", pad, np.int64), padded("segment", 0, np.int64), there,
        restored, padded("original", pad, np.int64).ravel()[restored], weights[restored // shape[1]].astype(np.float32),
        tagged, pos, ner, pairs, orders[pairs],
    ]  # fmt: skip
    tensors: list[Any] = [*map(torch.from_numpy, arrays), int(lengths.sum()), int((lengths**2).sum())]
    return EncoderBatch(*tensors)
