"""Denoising: a prepared corpus as an endless stream of corrupted examples, each a pure function of (seed, position)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mengzi_mt.data.copying import COPYING, copying_examples
from mengzi_mt.data.denoisers import MOST, Denoiser, corrupt, hardest_mask, keys_of, noise_counts, noise_mask
from mengzi_mt.data.sampling import BLOCK, Quotas
from mengzi_mt.data.token_shards import TokenCorpus, check_tokenizer, open_corpus
from mengzi_mt.data.tokens import Encoder, Original, TokenizedExample
from mengzi_mt.data.windows import Window, WindowOrder, held_out
from mengzi_mt.denoising_settings import DenoisingSettings
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 4_096
_COUNTED = 20_000_000
"""Tokens that the frequencies of pieces are counted on."""


class DenoisingStream:
    """Corrupted windows by position. A position's denoiser is dealt so that the rates hold exactly in every block of positions.

    Args:
        order: the windows.
        denoisers: ways to corrupt them.
        weights: of each denoiser.
        sentinels: ids of ``<extra_id_0>``, ``<extra_id_1>``, …
        eos: id at the end of inputs and targets.
        seed: another seed draws otherwise.
        whole_words: mask words, which the corpus's tags tell.
        surprisal: of every id; with ``candidates`` masks the one of the most surprising noise is taken.
        candidates: masks drawn for each window.
        damage: exponent of each example's damage in its ``weight``; 0 leaves all weights at 1.
        originals: give each example the text that it was made of.

    Raises:
        InputError: windows with more spans than sentinels; words wanted of a corpus without tags.
    """

    def __init__(
        self,
        order: WindowOrder,
        denoisers: Sequence[Denoiser],
        weights: Sequence[float],
        sentinels: Sequence[int],
        eos: int,
        seed: int,
        *,
        whole_words: bool = False,
        surprisal: np.ndarray | None = None,
        candidates: int = 1,
        damage: float = 0.0,
        originals: bool = False,
    ) -> None:
        self.order, self.denoisers, self.seed = order, list(denoisers), seed
        self.sentinels, self.eos = np.array(sentinels, dtype=np.int64), eos
        self.whole_words, self.surprisal, self.candidates = whole_words, surprisal, candidates
        self.damage, self.originals = damage, originals
        self._quotas = Quotas(weights)
        self._weights = [weight / sum(weights) for weight in weights]
        self._deal = lru_cache(maxsize=4)(self._deal_block)
        self._check_sentinels()
        if whole_words and order.corpus.tags(0) is None:
            raise InputError(
                "The corpus has no tags, so nothing says where words begin", where=f"denoising.whole_words, {order.corpus.folder}",
                fix="run `mengzi-mt corpus tag` on it, or set denoising.whole_words: false",
            )  # fmt: skip

    def _check_sentinels(self) -> None:
        for denoiser in self.denoisers:
            if denoiser.kind not in ("spans", "beside"):
                continue
            length = np.array([denoiser.tokens or self.order.longest])
            spans = int(noise_counts(length, length, np.array([denoiser.density]), np.array([denoiser.mean_span]))[1][0])
            if spans > len(self.sentinels) - (denoiser.kind == "beside"):
                raise InputError(
                    f"{length[0]} tokens have {spans} spans of noise, the tokenizer has {len(self.sentinels)} sentinels",
                    where=f"denoising.denoisers.{denoiser.name}, denoising.window",
                    fix="use shorter windows or longer spans",
                )

    @property
    def tasks(self) -> list[str]:
        """The denoisers' names as tasks."""
        return [denoiser.task for denoiser in self.denoisers]

    @property
    def rates(self) -> dict[str, float]:
        """Each denoiser's share of the examples."""
        return dict(zip(self.tasks, self._weights, strict=True))

    def examples(self, start: int, stop: int) -> list[TokenizedExample]:
        """The examples at positions ``start`` to ``stop - 1``.

        Raises:
            RunError: a damaged shard.
        """
        found: list[TokenizedExample] = []
        for first in range(start, stop, _AT_ONCE):
            found += self._some(range(first, min(stop, first + _AT_ONCE)))
        return found

    def counts(self, start: int, stop: int) -> dict[str, int]:
        """Exact number of examples of each denoiser between two positions."""
        numbers = self._reached(stop) - self._reached(start)
        return {task: int(number) for task, number in zip(self.tasks, numbers, strict=True) if number}

    def chosen(self, start: int, stop: int) -> np.ndarray:
        """The number of the denoiser at each position."""
        blocks = [self._deal(number) for number in range(start // BLOCK, (stop - 1) // BLOCK + 1)]
        return np.concatenate(blocks)[start % BLOCK :][: stop - start] if blocks else np.zeros(0, dtype=np.int64)

    def _reached(self, position: int) -> np.ndarray:
        block, within = divmod(position, BLOCK)
        return self._quotas(block * BLOCK) + np.bincount(self._deal(block)[:within], minlength=len(self.denoisers))

    def _deal_block(self, number: int) -> np.ndarray:
        low, high = (self._quotas(edge * BLOCK) for edge in (number, number + 1))
        digest = hashlib.sha256(f"{self.seed}\x1fdenoisers\x1f{number}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(BLOCK)
        return np.repeat(np.arange(len(self.denoisers)), high - low)[order]

    def _some(self, positions: range) -> list[TokenizedExample]:
        windows = list(self.order.windows(positions.start, positions.stop))
        corpus = self.order.corpus
        tokens = np.concatenate([corpus.document(w.document)[w.start : w.stop] for w in windows])
        lengths = np.array([window.stop - window.start for window in windows])
        chosen = self.chosen(positions.start, positions.stop)
        keys = keys_of(np.arange(positions.start, positions.stop), self.seed, "noise")
        mask = self._mask(tokens, windows, lengths, chosen, keys)
        marked = np.array([denoiser.kind != "prefix_lm" for denoiser in self.denoisers])[chosen]
        corrupted = corrupt(tokens, lengths, mask, marked, self.sentinels.astype(tokens.dtype))
        inputs, targets = ([side.tolist() for side in sides] for sides in corrupted)
        self._copy(inputs, targets, np.split(tokens, np.cumsum(lengths)[:-1]), chosen, keys)
        weights = (damage(mask, lengths) ** self.damage).tolist() if self.damage else [1.0] * len(windows)
        prefixes = [list(denoiser.prefix) for denoiser in self.denoisers]
        made = []
        for window, number, before, after, weight in zip(windows, chosen.tolist(), inputs, targets, weights, strict=True):
            denoiser = self.denoisers[number]
            row = f"{window.document}:{window.start}-{window.stop}"
            given = [*prefixes[number], *before, self.eos]
            made.append(TokenizedExample(given, [*after, self.eos], weight, denoiser.task, denoiser.name, row))
        if self.originals:
            texts, masks = (np.split(array, np.cumsum(lengths)[:-1]) for array in (tokens, mask))
            read = zip(made, texts, masks, chosen.tolist(), strict=True)
            return [one._replace(original=self._original(one, text, noise, prefixes[n])) for one, text, noise, n in read]
        return made

    def _copy(
        self, inputs: list[list[int]], targets: list[list[int]], texts: Sequence[np.ndarray], chosen: np.ndarray, keys: np.ndarray
    ) -> None:
        """Put what the kinds that copy make in its place."""
        copies = np.array([denoiser.kind in COPYING for denoiser in self.denoisers])
        at = np.flatnonzero(copies[chosen])
        if len(at):
            made = copying_examples([texts[number] for number in at.tolist()], self.denoisers, chosen[at], keys[at], self.sentinels)
            for number, given, wanted in zip(at.tolist(), *made, strict=True):
                inputs[number], targets[number] = given, wanted

    def _original(self, example: TokenizedExample, tokens: np.ndarray, noise: np.ndarray, prefix: list[int]) -> Original:
        places = np.flatnonzero(noise)
        marked = np.zeros(len(places), dtype=np.int64)
        if len(example.targets) > len(places) + 1:  # a sentinel stands before every span
            marked = np.cumsum(np.diff(places, prepend=-1) > 1)
        found = (np.arange(len(places)) + marked).tolist()
        return Original([*prefix, *tokens.tolist(), self.eos], (places + len(prefix)).tolist(), found)

    def _mask(
        self, tokens: np.ndarray, windows: Sequence[Window], lengths: np.ndarray, chosen: np.ndarray, keys: np.ndarray
    ) -> np.ndarray:
        words = np.concatenate([self._words(window) for window in windows]) if self.whole_words else None
        if self.surprisal is None:
            return noise_mask(lengths, self.denoisers, chosen, keys, words)
        return hardest_mask(lengths, self.denoisers, chosen, keys, self.surprisal[tokens], self.candidates, words)

    def _words(self, window: Window) -> np.ndarray:
        tags = self.order.corpus.tags(window.document)
        size = window.stop - window.start
        return np.ones(size, dtype=bool) if tags is None else tags[0][window.start : window.stop]


assert _AT_ONCE <= MOST


def damage(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How much the noise took from each window: ``(1/n) Σ over noise tokens of d / (1 + d)``, float64 ``(windows,)``.

    ``d`` is the distance in tokens to the nearest token that stayed. A noise token between two that stayed counts 1/2, one deep
    within a long span almost 1; what stayed counts 0. So the share of the noise tells and, with the same share, its place.

    Args:
        mask: flat; of each window at least one token stays.
        lengths: of the windows.
    """
    place = np.arange(len(mask))
    stops = np.cumsum(lengths)
    starts = stops - lengths
    window = np.repeat(np.arange(len(lengths)), lengths)
    far = 2 * len(mask) + 2
    left = np.maximum.accumulate(np.where(mask, -1, place))
    behind = np.where(left >= starts[window], place - left, far)
    right = np.minimum.accumulate(np.where(mask, far, place)[::-1])[::-1]
    ahead = np.where(right < stops[window], right - place, far)
    distance = np.where(mask, np.minimum(behind, ahead), 0)
    found: np.ndarray = np.add.reduceat(distance / (1 + distance), starts) / lengths
    return found


def mean_one(values: np.ndarray, counts: np.ndarray, most: float) -> np.ndarray:
    """Positive values as weights: divided by their mean, kept between ``1 / most`` and ``most``, and divided by that mean.

    Args:
        values: of each example, not negative.
        counts: what each example counts in a mean.
        most: as said.
    """
    mean = (values * counts).sum() / counts.sum()
    if not mean > 0:
        return np.ones_like(values)
    kept = np.clip(values / mean, 1 / most, most)
    weights: np.ndarray = kept * counts.sum() / (kept * counts).sum()
    return weights


def unigram_surprisal(corpus: TokenCorpus, vocabulary: int, tokens: int = _COUNTED) -> np.ndarray:
    """``-log p`` of every id, from counts over documents spread evenly over the corpus, one added to each; float64 ``(ids,)``.

    Args:
        corpus: what is counted.
        vocabulary: number of ids.
        tokens: counted at most, about.
    """
    step = max(1, -(-corpus.tokens // tokens))
    counts = np.ones(vocabulary, dtype=np.int64)
    for number in range(0, corpus.documents, step):
        counts += np.bincount(corpus.document(number), minlength=vocabulary)
    return -np.log(counts / counts.sum())


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of ``<extra_id_0>``, ``<extra_id_1>``, … as far as the tokenizer has them.

    Raises:
        InputError: it has none.
    """
    known: dict[str, int] = tokenizer.get_vocab()
    found: list[int] = []
    while (piece := f"<extra_id_{len(found)}>") in known:
        found.append(known[piece])
    if not found:
        raise InputError(
            "The tokenizer has no sentinels (<extra_id_0> …), which denoising needs", where=str(tokenizer.name_or_path),
            fix="use a T5 tokenizer, or train one: mengzi-mt tokenizer train",
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Denoising:
    """What denoising contributes to a run.

    Attributes:
        stream: the training examples.
        share: of the run's positions that are denoising's.
        validation: examples of held-out documents by denoiser task.
        provenance: for the manifest.
        most: an example weighs at most so many times the mean.
    """

    stream: DenoisingStream
    share: float
    validation: Mapping[str, list[TokenizedExample]]
    provenance: Mapping[str, Any]
    most: float = 4.0

    def before(self, position: int) -> int:
        """How many of the run's first ``position`` examples are denoising's: never off the share by more than one half."""
        return position if self.share == 1 else int(position * self.share + 0.5)

    def positions(self, start: int, stop: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of the run's positions ``start`` to ``stop - 1``: the positions of denoising, and of the tasks' mixture."""
        low, high = self.before(start), self.before(stop)
        return (low, high), (start - low, stop - high)

    def examples(self, start: int, stop: int, per_example: bool = False) -> list[TokenizedExample]:
        """Denoising's examples ``start`` to ``stop - 1``, of one step, with weights that are 1 on average.

        The average is over examples where ``per_example``, over target tokens otherwise: what a step's loss is divided by.
        """
        made = self.stream.examples(start, stop)
        if not self.stream.damage or not made:
            return made
        counts = np.ones(len(made)) if per_example else np.array([len(example.targets) for example in made])
        weights = mean_one(np.array([example.weight for example in made]), counts, self.most)
        return [example._replace(weight=weight) for example, weight in zip(made, weights.tolist(), strict=True)]


def make_denoising(settings: DenoisingSettings, tokenizer: PreTrainedTokenizerBase, seed: int, validation: int) -> Denoising:
    """Open the corpus of a recipe.

    Args:
        settings: the recipe's.
        tokenizer: of the model.
        seed: of the recipe.
        validation: held-out examples of each denoiser at most.

    Raises:
        InputError: no such corpus, another tokenizer's, or one that does not fit the settings.
    """
    corpus = open_corpus(Path(settings.corpus))
    check_tokenizer(corpus, tokenizer)
    kept = held_out(corpus, settings.held_out)
    encoder = Encoder(tokenizer)
    denoisers = [
        Denoiser(
            name,
            one.kind,
            one.density,
            one.mean_span,
            tuple(encoder(one.prefix)) if one.prefix else (),
            one.tokens if one.copies else None,
        )
        for name, one in settings.denoisers.items()
    ]
    weights = [one.weight for one in settings.denoisers.values()]
    sentinels = sentinel_ids(tokenizer)
    surprisal = unigram_surprisal(corpus, len(tokenizer)) if settings.candidates > 1 else None
    order = WindowOrder(corpus, ~kept, settings.window, seed)
    stream = DenoisingStream(
        order, denoisers, weights, sentinels, encoder.eos, seed,
        whole_words=settings.whole_words, surprisal=surprisal, candidates=settings.candidates, damage=settings.instance.damage,
        originals=settings.instance.reads_originals,
    )  # fmt: skip
    aside = {}
    if validation and kept.any():
        for denoiser in denoisers:
            windows = WindowOrder(corpus, kept, settings.window, 0)
            alone = DenoisingStream(windows, [denoiser], [1.0], sentinels, encoder.eos, 0, whole_words=settings.whole_words)
            aside[denoiser.task] = alone.examples(0, min(validation, windows.count))
    provenance = {
        "corpus": corpus.manifest["fingerprint"],
        "sources": corpus.manifest.get("sources", {}),
        "documents": corpus.documents,
        "held_out_documents": int(kept.sum()),
        "too_short_documents": order.too_short,
        "windows_an_epoch": order.count,
        "tokens_an_epoch": order.tokens,
        "share": settings.rate,
    }
    return Denoising(stream, settings.rate, aside, provenance, settings.instance.most)
