"""Denoisers: which tokens of a window are noise, and the inputs and targets that follow from it. Numpy over many windows at once.

Windows lie end to end in one flat array. All that is random is a hash of an example's own key, so that what an example
becomes does not depend on which others are made beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_INDEX_BITS, _RANDOM_BITS = 16, 28
LONGEST = 1 << _INDEX_BITS
"""Tokens of a window at most: places are numbered in 16 bits."""
MOST = 1 << (64 - _INDEX_BITS - _RANDOM_BITS - 1)
"""Windows that are masked at once at most."""


@dataclass(frozen=True)
class Denoiser:
    """One way to corrupt a window.

    Attributes:
        name: of the denoiser; its examples' task is ``denoise_<name>``.
        kind: ``spans`` (T5's span corruption), ``suffix`` (the end behind one sentinel), ``prefix_lm`` (the end, no sentinel), or
            one of :mod:`mengzi_mt.data.copying`.
        density: share of the tokens that are noise; of the two suffix kinds the mean share.
        mean_span: mean tokens of a span of noise.
        prefix: ids that the inputs begin with (UL2's mode).
        tokens: of each text of the kinds that copy; None: half a window.
    """

    name: str
    kind: str = "spans"
    density: float = 0.15
    mean_span: float = 3.0
    prefix: tuple[int, ...] = ()
    tokens: int | None = None

    @property
    def task(self) -> str:
        """What its examples are counted as."""
        return f"denoise_{self.name}"

    def of_spans(self) -> Denoiser:
        """The same density and length of spans, as plain span corruption."""
        return replace(self, kind="spans")


def hashed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea, Flood, OOPSLA 2014): uint64 in, well mixed uint64 out."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def keys_of(numbers: np.ndarray, *seed: object) -> np.ndarray:
    """A random uint64 for each number, another for another seed. Further draws of a key are ``keys_of_draws(key, 0, 1, …)``."""
    digest = hashlib.sha256("\x1f".join(map(str, seed)).encode()).digest()
    return keys_of_draws(np.uint64(int.from_bytes(digest[:8], "big")), numbers)


def keys_of_draws(keys: np.ndarray | np.uint64, draws: np.ndarray) -> np.ndarray:
    """The ``draws``-th random uint64 of each key: SplitMix64 begun at the key and run so many steps."""
    with np.errstate(over="ignore"):
        return hashed((draws.astype(np.uint64) + np.uint64(1)) * _GOLDEN + keys)


def uniform(keys: np.ndarray) -> np.ndarray:
    """Float64 in [0, 1) from uint64."""
    found: np.ndarray = (keys >> np.uint64(11)) * 2.0**-53
    return found


def noise_counts(
    units: np.ndarray, tokens: np.ndarray, density: np.ndarray, mean_span: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Noise units and noise spans of each window, as T5 counts them (``random_spans_noise_mask`` in its ``preprocessors.py``).

    ``round(units · density)`` units, at least one and not all; ``round(noise tokens / mean_span)`` spans, at least one. T5 leaves
    out one bound, which only a density above 1/2 with short spans meets: no more spans than units that are not noise.

    Args:
        units: of each window, at least 2: tokens, or words where whole words are masked.
        tokens: of each window.
        density: of each window's denoiser.
        mean_span: in tokens, of each window's denoiser.
    """
    noise = np.clip(np.rint(units * density), 1, units - 1).astype(np.int64)
    noise_tokens = np.where(units == tokens, noise, np.clip(np.rint(tokens * density), 1, tokens - 1))
    spans = np.clip(np.rint(noise_tokens / mean_span), 1, np.minimum(noise, units - noise)).astype(np.int64)
    return noise, spans


def random_segments(items: np.ndarray, segments: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Cut each group of ``items`` into ``segments`` non-empty segments, all ways equally likely; their lengths, end to end.

    Args:
        items: of each group, ``(groups,)``, at most :data:`LONGEST`.
        segments: of each group, between 1 and its items.
        keys: of each group.
    """
    gaps, cuts = items - 1, segments - 1
    group = np.repeat(np.arange(len(items)), gaps)
    place = np.arange(len(group)) - np.repeat(np.cumsum(gaps) - gaps, gaps)
    random = keys_of_draws(keys[group], place) >> np.uint64(64 - _RANDOM_BITS)
    tickets = (group.astype(np.uint64) << np.uint64(_INDEX_BITS + _RANDOM_BITS)) | (random << np.uint64(_INDEX_BITS))
    tickets |= place.astype(np.uint64)
    tickets.sort()  # within a group by the random part: its first ``cuts`` gaps are a random choice
    cut_group = np.repeat(np.arange(len(items)), cuts)
    taken = np.arange(len(cut_group)) - np.repeat(np.cumsum(cuts) - cuts, cuts) + (np.cumsum(gaps) - gaps)[cut_group]
    chosen = (tickets[taken] & np.uint64(LONGEST - 1)).astype(np.int64)
    begins = np.cumsum(items) - items
    first = np.zeros(int(items.sum()), dtype=bool)
    first[begins] = True
    first[begins[cut_group] + chosen + 1] = True
    return np.diff(np.flatnonzero(first), append=len(first))


def span_mask(units: np.ndarray, noise: np.ndarray, spans: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """T5's random spans of noise: which units are noise, a flat boolean array over all windows.

    A window alternates between units that stay and spans of noise, as many of each. It **begins with units that stay and ends
    with noise**; under that, and given the numbers, all masks are equally likely::

        units 10, noise 3, spans 2     . . . x x . . . . x        (5 of such masks times the cuts of 7 into 2)

    Args:
        units: of each window, at least 2.
        noise: units of noise, at least 1 and less than all.
        spans: of noise, at most ``min(noise, units - noise)``.
        keys: of each window.
    """
    items = np.stack([units - noise, noise], 1).reshape(-1)  # of each window: what stays, then the noise
    both = np.stack([keys_of_draws(keys, np.full(len(keys), side)) for side in (0, 1)], 1).reshape(-1)
    lengths = random_segments(items, np.repeat(spans, 2), both)
    window = np.repeat(np.arange(len(spans)), spans)
    number = np.arange(len(window)) - np.repeat(np.cumsum(spans) - spans, spans)
    begin = 2 * (np.cumsum(spans) - spans)[window]
    alternating = np.empty_like(lengths)
    alternating[begin + 2 * number] = lengths[begin + number]
    alternating[begin + 2 * number + 1] = lengths[begin + spans[window] + number]
    return np.repeat(np.arange(len(alternating)) % 2 == 1, alternating)


def suffix_mask(units: np.ndarray, density: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The end of each window as noise: its length is uniform over 1 to ``2 · density · units - 1``, so ``density`` on average.

    UL2's S-denoiser has density 1/4 (arXiv:2205.05131, section 3.1.2); 1/2 is the prefix language model of T5
    (arXiv:1910.10683, section 3.2.3), whose cut may fall anywhere.
    """
    longest = np.clip(np.rint(2 * density * units) - 1, 1, units - 1)
    noise = 1 + np.floor(uniform(keys) * longest).astype(np.int64)
    return np.repeat(np.arange(2 * len(units)) % 2 == 1, np.stack([units - noise, noise], 1).reshape(-1))


def noise_mask(
    lengths: np.ndarray,
    denoisers: Sequence[Denoiser],
    chosen: np.ndarray,
    keys: np.ndarray,
    words: np.ndarray | None = None,
) -> np.ndarray:
    """Which tokens of the windows are noise, a flat boolean array.

    Args:
        lengths: tokens of each window, ``(windows,)``, at least 2.
        denoisers: to choose from.
        chosen: number of each window's denoiser.
        keys: of each window.
        words: which tokens begin a word, flat; noise is then whole words. A window of a single word is masked by tokens.
    """
    if words is None:
        units, sizes = lengths, None
    else:
        begins = _begins(words, lengths)
        units = np.add.reduceat(begins, np.cumsum(lengths) - lengths, dtype=np.int64)
        sizes = np.diff(np.flatnonzero(begins), append=len(begins))
    density = np.array([denoiser.density for denoiser in denoisers])[chosen]
    mean_span = np.array([denoiser.mean_span for denoiser in denoisers])[chosen]
    spanned = np.array([denoiser.kind == "spans" for denoiser in denoisers])[chosen]
    mask = np.empty(int(units.sum()), dtype=bool)
    of_spans = np.repeat(spanned, units)
    if spanned.any():
        noise, spans = noise_counts(units[spanned], lengths[spanned], density[spanned], mean_span[spanned])
        mask[of_spans] = span_mask(units[spanned], noise, spans, keys[spanned])
    if not spanned.all():
        mask[~of_spans] = suffix_mask(units[~spanned], density[~spanned], keys[~spanned])
    return mask if sizes is None else np.repeat(mask, sizes)


def _begins(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where words begin: also at a window's start, and at every token of a window that is one word."""
    begins = words.astype(bool)
    starts = np.cumsum(lengths) - lengths
    begins[starts] = True
    single = np.add.reduceat(begins, starts, dtype=np.int64) < 2
    begins[np.repeat(single, lengths)] = True
    return begins


def hardest_mask(
    lengths: np.ndarray,
    denoisers: Sequence[Denoiser],
    chosen: np.ndarray,
    keys: np.ndarray,
    surprisal: np.ndarray,
    candidates: int,
    words: np.ndarray | None = None,
) -> np.ndarray:
    """Of some random masks of each window the one whose noise is most surprising on average.

    Number of noise tokens and spans stay what :func:`noise_mask` makes them: only where they fall changes.

    Args:
        lengths: as there, like ``denoisers``, ``chosen``, ``keys`` and ``words``.
        surprisal: of each token, flat.
        candidates: masks drawn for each window.
    """
    starts = np.cumsum(lengths) - lengths
    best = np.full(len(lengths), -np.inf)
    mask = np.zeros(int(lengths.sum()), dtype=bool)
    for number in range(candidates):
        drawn = noise_mask(lengths, denoisers, chosen, keys_of_draws(keys, np.full(len(keys), number)), words)
        score = np.add.reduceat(surprisal * drawn, starts) / np.add.reduceat(drawn, starts, dtype=np.int64)
        better = score > best
        best = np.where(better, score, best)
        mask = np.where(np.repeat(better, lengths), drawn, mask)
    return mask


def corrupt(
    tokens: np.ndarray, lengths: np.ndarray, mask: np.ndarray, marked: np.ndarray, sentinels: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and targets of each window, without prefix and end-of-sequence.

    ::

        window     a b c d e f g h        mask  . . x x . . . x
        inputs     a b <0> e f g <1>
        targets    <0> c d <1> h

    T5's code ends the targets so, too: the figure in its paper has one more sentinel behind them.

    Args:
        tokens: flat.
        lengths: of the windows.
        mask: flat; a window's first token is not noise.
        marked: of each window whether sentinels are set.
        sentinels: ids in their order; at least as many as a window has spans.
    """
    window = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    before = np.roll(mask, 1)
    before[starts] = False
    begins = mask & ~before
    counted = np.cumsum(begins)
    number = counted - (counted[starts] - begins[starts])[window] - 1
    flagged = begins & marked[window]
    spelled = np.where(begins, sentinels[np.where(flagged, number, 0)], tokens)
    kept = ~mask | flagged
    inputs = np.split(spelled[kept], np.cumsum(np.add.reduceat(kept, starts, dtype=np.int64))[:-1])
    written = mask.astype(np.int64) + flagged
    ends = np.cumsum(written)
    flat = np.empty(int(ends[-1]), dtype=tokens.dtype)
    flat[ends[mask] - 1] = tokens[mask]
    flat[ends[flagged] - 2] = sentinels[number[flagged]]
    targets = np.split(flat, np.cumsum(np.add.reduceat(written, starts))[:-1])
    return inputs, targets


def restore(inputs: Sequence[int], targets: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The window that inputs and targets (without prefix and end-of-sequence) were made of.

    Where the inputs hold no sentinel the targets follow them.
    """
    order = {int(token): number for number, token in enumerate(sentinels)}
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token in order:
            spans[token] = current = []
        elif spans:
            current.append(token)
    if not spans:
        return [*inputs, *targets]
    return [piece for token in inputs for piece in (spans.get(token, []) if token in order else [token])]
