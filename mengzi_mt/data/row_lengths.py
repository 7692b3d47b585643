"""Row lengths: how full given ones get, and which to choose for a mixture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.packing import RowLength, pack_lengths
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError


@dataclass(frozen=True)
class Fill:
    """What rows hold after packing steps of so many examples; shares are of token slots."""

    step: int
    both: float
    encoder: float
    decoder: float
    rows_per_step: float
    """On average."""
    lengths_per_step: float
    """Different ones, on average."""


def token_lengths(examples: Iterable[TextExample], encoder: Encoder, limits: Limits) -> tuple[list[int], list[int]]:
    """Input and target tokens of the examples that stay within the limits."""
    kept = [tokens for tokens in encoder.examples(list(examples), limits) if tokens is not None]
    return [len(tokens.inputs) for tokens in kept], [len(tokens.targets) for tokens in kept]


def measure_fill(inputs: Sequence[int], targets: Sequence[int], rows: Sequence[RowLength], step: int) -> Fill:
    """Pack the examples in steps of ``step``, as training would, and count. A last step that is not whole is left out.

    Args:
        inputs: input tokens of each example, in the mixture's order.
        targets: target tokens of each example.
        rows: row lengths.
        step: examples an optimiser step.

    Raises:
        InputError: fewer examples than one step, or one that no row length holds.
    """
    whole = len(inputs) // step
    if not whole:
        raise InputError(f"{len(inputs)} examples are not enough for one step of {step}", fix="measure over more examples")
    slots_in = slots_out = packed = lengths = 0
    for start in range(0, whole * step, step):
        plan = [length for length, _ in pack_lengths(inputs[start : start + step], targets[start : start + step], rows)]
        slots_in += sum(encoder for encoder, _ in plan)
        slots_out += sum(decoder for _, decoder in plan)
        packed += len(plan)
        lengths += len(set(plan))
    tokens_in, tokens_out = sum(inputs[: whole * step]), sum(targets[: whole * step])
    both = (tokens_in + tokens_out) / (slots_in + slots_out)
    return Fill(step, both, tokens_in / slots_in, tokens_out / slots_out, packed / whole, lengths / whole)


def propose_rows(
    inputs: Sequence[int], targets: Sequence[int], encoder: int, limits: tuple[int, int], step: int, wanted: float, most: int
) -> Iterator[tuple[tuple[RowLength, ...], Fill]]:
    """Row lengths to choose from, one more each time: every addition is the one after which steps are fullest.

    The first is ``encoder`` long, with room for the longest target and a row's average targets. Candidates have that encoder
    length and any multiple of 1/32 of it on the decoder's side, or are short rows for what is left at a step's end. It
    ends where ``wanted`` is reached, with ``most`` lengths, or where no addition helps.

    Args:
        inputs: input tokens of a sample of examples.
        targets: their target tokens.
        encoder: encoder length of the rows, at least ``limits[0]``.
        limits: most input and most target tokens of an example.
        step: examples an optimiser step.
        wanted: share of slots that shall hold tokens.
        most: number of lengths.
    """
    if encoder < limits[0]:
        raise InputError(
            f"Rows of {encoder} tokens do not hold an input of {limits[0]}", where="--encoder", fix="choose longer rows"
        )
    unit = max(8, encoder // 32)
    longest = -int(-(limits[1] + encoder * sum(targets) / sum(inputs)) // unit) * unit
    chosen: list[RowLength] = [(encoder, longest)]
    candidates = [(encoder, decoder) for decoder in range(unit, longest, unit)]
    candidates += [(encoder // part, encoder // part // ratio) for part in (2, 4) for ratio in (8, 16) if encoder // part >= 64]
    best = measure_fill(inputs, targets, chosen, step)
    yield tuple(chosen), best
    while best.both < wanted and len(chosen) < most:
        tried = [(measure_fill(inputs, targets, sorted([*chosen, one]), step), one) for one in candidates if one not in chosen]
        found, added = max(tried, key=lambda item: (item[0].both, item[1]))
        if found.both <= best.both:
            return
        best, chosen = found, sorted([*chosen, added])
        yield tuple(chosen), best
