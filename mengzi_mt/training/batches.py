"""Batches: from a mixture's positions to packed tensors, one optimiser step at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mengzi_mt.config import LengthSettings
from mengzi_mt.data.batch import PackedBatch
from mengzi_mt.data.collate import collate
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.flat import FlatBatch, flat_batches
from mengzi_mt.data.packing import micro_batches, pack
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.errors import RunError


@dataclass
class StepBatch:
    """All that one optimiser step reads: micro-batches of packed rows, and what they hold."""

    batches: Sequence[PackedBatch | FlatBatch]
    examples: Counter[str] = field(default_factory=Counter)
    too_long: int = 0
    cut: int = 0

    @property
    def tokens(self) -> int:
        """Non-padding tokens of both sides."""
        return sum(batch.tokens for batch in self.batches)

    @property
    def slots(self) -> int:
        """Token slots of both sides, padding included."""
        return sum(batch.slots for batch in self.batches)

    @property
    def task_tokens(self) -> Counter[str]:
        """Tokens of both sides by task; empty for packed rows, which do not keep their examples apart."""
        counts: Counter[str] = Counter()
        for batch in self.batches:
            if isinstance(batch, FlatBatch):
                for task, (inputs, targets) in zip(batch.tasks, batch.lengths, strict=True):
                    counts[task] += inputs + targets
        return counts

    @property
    def weight(self) -> float:
        """Sum of the target tokens' weights: what the step's loss is divided by."""
        return float(sum(batch.weights.sum() for batch in self.batches))


def make_step_batch(
    examples: Iterable[TextExample],
    encoder: Encoder,
    lengths: LengthSettings,
    micro_batch_tokens: int,
    start: int,
    per_example: bool = False,
    layout: str = "packed",
) -> StepBatch:
    """Tokenise, pack and collate the examples of one optimiser step.

    Args:
        examples: the step's examples.
        encoder: of the model's tokenizer.
        lengths: limits and row lengths.
        micro_batch_tokens: token slots of one forward pass.
        start: the decoder's start id.
        per_example: share an example's weight out among its target tokens, so that a two-token label counts as much as
            a generated paragraph.
        layout: ``packed`` into rows of the fixed lengths, or ``flat`` without padding.

    Raises:
        RunError: not one example fits the limits.
    """
    tokenized = encoder.examples(list(examples), Limits(lengths.max_input, lengths.max_target))
    return pack_step(list(tokenized), lengths, micro_batch_tokens, encoder.pad, start, per_example, layout)


def pack_step(
    examples: Sequence[TokenizedExample | None],
    lengths: LengthSettings,
    micro_batch_tokens: int,
    pad: int,
    start: int,
    per_example: bool = False,
    layout: str = "packed",
) -> StepBatch:
    """The same of tokenised examples, of which None did not fit the limits; ``pad`` is the id of padding.

    Raises:
        RunError: not one example fits the limits.
    """
    kept = [example for example in examples if example is not None]
    step = StepBatch([], Counter(example.task for example in kept), len(examples) - len(kept))
    step.cut = sum(example.cut > 0 for example in kept)
    if not kept:
        raise RunError(
            f"None of the {step.too_long} examples of this step fits {lengths.max_input} input and {lengths.max_target} "
            "target tokens",
            where="lengths.max_input, lengths.max_target",
            fix="raise the limits",
        )
    if per_example:
        kept = [example._replace(weight=example.weight / len(example.targets)) for example in kept]
    if layout == "flat":
        step.batches = list(flat_batches(kept, micro_batch_tokens, start))
    else:
        rows = pack(kept, lengths)
        step.batches = [collate(group, pad, start) for group in micro_batches(rows, micro_batch_tokens)]
    return step
