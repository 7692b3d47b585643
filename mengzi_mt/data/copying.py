"""Denoisers whose answer stands in the input: to give it, a model has to find a place in a text and copy from there.

Span corruption rewards looking elsewhere in the text only now and then, so a small model guesses frequent tokens for a long
time before it begins to look. Here nothing else is rewarded. (Simple synthetic tasks as pretraining: LIME, arXiv:2101.06223;
Krishna et al., arXiv:2109.04953; Wu et al., arXiv:2206.10139. These three kinds are ours.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mengzi_mt.data.denoisers import Denoiser, corrupt, keys_of_draws, noise_mask, uniform

COPYING = ("copy", "beside", "changes")
"""The kinds of :class:`~mengzi_mt.data.denoisers.Denoiser` that are made here."""
_PLACE, _MASK, _ORDER = range(3)


def copying_examples(
    windows: Sequence[np.ndarray], denoisers: Sequence[Denoiser], chosen: np.ndarray, keys: np.ndarray, sentinels: np.ndarray
) -> tuple[list[list[int]], list[list[int]]]:
    """Inputs and targets of each window, without prefix and end-of-sequence.

    Of a window two texts a and b are taken, one behind the other, from a place that the key decides: ``denoiser.tokens`` each, or
    half of the window each where it is shorter. A window of less than four tokens is copied, whatever the kind::

        a = the cat sat on the mat       b = and purred until it slept

        copy       the cat sat on the mat                         →  the cat sat on the mat
        beside     the <0> on the <1> <99> and … slept the … mat  →  <0> cat sat <1> mat          (a b or b a behind <99>)
        changes    the cat sat on the mat <99> the purred sat …   →  <0> cat <1> purred …         (what stood, what stands there)

    Args:
        windows: ids of each.
        denoisers: to choose from, all of these kinds.
        chosen: number of each window's denoiser.
        keys: of each window.
        sentinels: ids in their order; the last one stands between the texts.
    """
    inputs: list[list[int]] = []
    targets: list[list[int]] = []
    draws = [keys_of_draws(keys, np.full(len(keys), number)) for number in (_PLACE, _MASK, _ORDER)]
    places, orders = uniform(draws[_PLACE]), uniform(draws[_ORDER])
    for number, window in enumerate(windows):
        denoiser = denoisers[int(chosen[number])]
        size = min(denoiser.tokens or len(window), len(window) // 2)
        if size < 2:
            inputs.append(window.tolist())
            targets.append(window.tolist())
            continue
        begin = int(places[number] * (len(window) - 2 * size + 1))
        first, second = window[begin : begin + size], window[begin + size : begin + 2 * size]
        if denoiser.kind == "copy":
            inputs.append(first.tolist())
            targets.append(first.tolist())
            continue
        one, zero = np.array([size]), np.zeros(1, dtype=np.int64)
        mask = noise_mask(one, [denoiser.of_spans()], zero, draws[_MASK][number : number + 1])
        if denoiser.kind == "beside":
            given, wanted = corrupt(first, one, mask, np.ones(1, dtype=bool), sentinels)
            both = (first, second) if orders[number] < 0.5 else (second, first)
            inputs.append([*given[0].tolist(), int(sentinels[-1]), *both[0].tolist(), *both[1].tolist()])
            targets.append(wanted[0].tolist())
        else:
            inputs.append([*first.tolist(), int(sentinels[-1]), *np.where(mask, second, first).tolist()])
            targets.append(_changes(first, second, mask, sentinels))
    return inputs, targets


def _changes(before: np.ndarray, after: np.ndarray, mask: np.ndarray, sentinels: np.ndarray) -> list[int]:
    """``<0> before <1> after`` of every run of the mask."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    found: list[int] = []
    for start, stop in edges.reshape(-1, 2).tolist():
        found += [int(sentinels[0]), *before[start:stop].tolist(), int(sentinels[1]), *after[start:stop].tolist()]
    return found
