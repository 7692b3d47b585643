import numpy as np
import pytest

from mengzi_mt.data.copying import copying_examples
from mengzi_mt.data.denoisers import Denoiser, keys_of

SENTINELS = np.arange(900, 1000)
KINDS = [
    Denoiser("copy", "copy", tokens=12),
    Denoiser("beside", "beside", density=0.5, mean_span=3, tokens=12),
    Denoiser("changes", "changes", density=0.25, mean_span=2, tokens=12),
]


def made(kind, windows, seed=0):
    chosen = np.full(len(windows), kind)
    return list(zip(*copying_examples(windows, KINDS, chosen, keys_of(np.arange(len(windows)), seed), SENTINELS), strict=True))


@pytest.fixture
def windows():
    return [np.arange(100 * number, 100 * number + size) for number, size in enumerate((24, 40, 31, 60, 25, 99, 24, 80))]


def halves(window, given):
    """The two texts that an input of two texts was made of, by their first token."""
    begin = next(at for at in range(len(window)) if window[at] == given[0])
    return window[begin : begin + 12].tolist(), window[begin + 12 : begin + 24].tolist()


def test_a_copy_is_some_of_the_window(windows):
    begins = set()
    for window, (given, wanted) in zip(windows, made(0, windows), strict=True):
        assert given == wanted and len(given) == 12
        begin = given[0] - window[0]
        assert given == window[begin : begin + 12].tolist() and begin + 24 <= len(window)
        begins.add(begin)
    assert len(begins) > 3


def test_beside_a_corrupted_text_stands_all_that_it_lost(windows):
    sides = set()
    for window, (given, wanted) in zip(windows, made(1, windows), strict=True):
        at = given.index(999)
        first, second = halves(window, given)
        corrupted, beside = given[:at], given[at + 1 :]
        assert beside in (first + second, second + first)
        sides.add(beside[0] == first[0])
        lost = {}
        for token in wanted:
            if token >= 900:
                lost[token] = current = []
            else:
                current.append(token)
        assert [piece for token in corrupted for piece in (lost[token] if token >= 900 else [token])] == first
        assert sum(map(len, lost.values())) == 6 and list(lost) == [900, 901]
    assert sides == {True, False}


def test_changes_are_what_differs(windows):
    for window, (given, wanted) in zip(windows, made(2, windows), strict=True):
        at = given.index(999)
        before, after = given[:at], given[at + 1 :]
        first, second = halves(window, given)
        assert before == first and all(token in (old, new) for token, old, new in zip(after, first, second, strict=True))
        expected, inside = [], False
        for place in range(12):
            differs = before[place] != after[place]
            if differs and not inside:
                end = next((p for p in range(place, 12) if before[p] == after[p]), 12)
                expected += [900, *before[place:end], 901, *after[place:end]]
            inside = differs
        assert wanted == expected and wanted.count(900) == 2  # three tokens in two spans


def test_an_example_hangs_on_its_own_key_alone(windows):
    chosen = np.arange(len(windows)) % 3
    keys = keys_of(np.arange(len(windows)), "x")
    together = list(zip(*copying_examples(windows, KINDS, chosen, keys, SENTINELS), strict=True))
    for number in range(len(windows)):
        part = slice(number, number + 1)
        alone = copying_examples(windows[part], KINDS, chosen[part], keys[part], SENTINELS)
        assert together[number] == (alone[0][0], alone[1][0])
    assert together != list(
        zip(*copying_examples(windows, KINDS, chosen, keys_of(np.arange(len(windows)), "y"), SENTINELS), strict=True)
    )


def test_short_windows():
    assert made(1, [np.array([5, 6, 7])]) == [([5, 6, 7], [5, 6, 7])]
    given, wanted = made(1, [np.array([5, 6, 7, 8])])[0]
    assert given[:2] == [5, 900] and wanted == [900, 6] and sorted(given[3:]) == [5, 6, 7, 8]
