from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.data.sampling import BLOCK, Quotas, Sampler, Source, Stage

NAMES = ("a", "b", "c")
RATES = st.lists(st.floats(1e-6, 1), min_size=1, max_size=40)
POSITIONS = st.integers(0, 10**12)


def usable_table(rows):
    """Every row can use template 0, odd ones the last too, every third the middle one."""
    table = np.zeros((rows, 3), dtype=bool)
    table[:, 0] = True
    table[1::2, 2] = True
    table[::3, 1] = True
    return table


def sources(sizes=(7, 50, 300)):
    made = [Source(name, size, 3) for name, size in zip(NAMES, sizes, strict=False)]
    made[-1] = Source(made[-1].name, made[-1].rows, 3, usable_table(made[-1].rows))
    return made


def sampler(sizes=(7, 50, 300), rates=(0.2, 0.3, 0.5), seed=1, ends=()):
    first = dict(zip(NAMES, rates, strict=False))
    others = [Stage({"a": 1.0}, ends[0]), Stage({"b": 0.9, "c": 0.1}, ends[1])] if ends else []
    return Sampler(sources(sizes), [Stage(first), *others], seed)


def table(draws):
    return np.stack(draws, axis=1).tolist()


SHARED = sampler()
STAGED = sampler(ends=(5_000, 13_000))
EITHER = st.sampled_from([SHARED, STAGED])


@settings(deadline=None)
@given(RATES, st.lists(POSITIONS, min_size=2, max_size=5))
def test_quotas_sum_to_the_position_stay_within_two_and_never_fall(rates, positions):
    quotas, total = Quotas(rates), sum(rates)
    before = np.zeros(len(rates), dtype=np.int64)
    for position in sorted(positions):
        counts = quotas(position)
        assert counts.sum() == position
        assert (counts >= before).all()
        exact = np.array([rate / total for rate in rates]) * position
        assert (abs(counts - exact) <= 2 + 1e-11 * position).all()
        before = counts


def test_rare_tasks_are_never_owed_examples():
    """Differences of rounded cumulative rates fall here: 1 example of task 1 after 4 positions, none after 5."""
    rates = [0.6248, 0.0004, 0.3748]
    rounded = [np.diff(np.floor(np.cumsum(rates) * n + 0.5), prepend=0)[1] for n in range(200)]
    assert min(np.diff(rounded)) < 0
    assert np.diff([Quotas(rates)(n) for n in range(200)], axis=0).min() == 0


def test_a_source_without_rate_has_no_quota():
    assert Quotas([0.5, 0.0, 0.5])(1_001).tolist() in ([500, 0, 501], [501, 0, 500])


@settings(max_examples=25, deadline=None)
@given(st.booleans(), st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_a_draw_is_a_pure_function_of_seed_and_position(staged, positions):
    ends = (5_000, 13_000) if staged else ()
    shared = STAGED if staged else SHARED
    known = {position: table(shared.draws(range(position, position + 1))) for position in positions}
    fresh = sampler(ends=ends)
    assert {position: table(fresh.draws(range(position, position + 1))) for position in reversed(positions)} == known


def test_another_seed_draws_otherwise():
    assert table(sampler(seed=2).draws(range(50))) != table(SHARED.draws(range(50)))


@settings(max_examples=25, deadline=None)
@given(EITHER, st.integers(0, 30_000), st.integers(0, 9_000), st.integers(1, 7))
def test_workers_together_draw_what_one_draws_alone(drawn_from, start, length, workers):
    alone = table(drawn_from.draws(range(start, start + length)))
    strided = [table(drawn_from.draws(range(start + worker, start + length, workers))) for worker in range(workers)]
    assert [strided[place % workers][place // workers] for place in range(length)] == alone
    bounds = [start + length * worker // workers for worker in range(workers + 1)]
    contiguous = [table(drawn_from.draws(range(a, b))) for a, b in pairwise(bounds)]
    assert [draw for part in contiguous for draw in part] == alone
    assert table(drawn_from.draws(range(start, start + length)[::-1])) == alone[::-1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.integers(0, 10**6))
def test_a_block_holds_what_the_quotas_say(rates, block):
    mixed = sampler(rates=rates)
    drawn = mixed.draws(range(block * BLOCK, (block + 1) * BLOCK))
    counts = np.bincount(drawn.sources, minlength=3)
    assert counts.tolist() == (mixed.reached((block + 1) * BLOCK) - mixed.reached(block * BLOCK)).tolist()
    assert (abs(counts - np.array(rates) / sum(rates) * BLOCK) <= 4).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=3, max_size=3), st.integers(0, 99), st.booleans())
def test_no_row_is_read_again_before_every_other_was_read(sizes, seed, staged):
    mixed = sampler(tuple(sizes), seed=seed, ends=(1_500, 2_000) if staged else ())
    stop = 3 * BLOCK if not staged else 2_000 + BLOCK  # a block's end
    drawn = mixed.draws(range(stop))
    for number, size in enumerate(sizes):
        reads = np.bincount(drawn.rows[drawn.sources == number], minlength=size)
        assert reads.sum() > 0
        assert reads.max() - reads.min() <= 1


def test_templates_take_turns_over_epochs():
    mixed = Sampler([Source("a", 64, 4)], [Stage({"a": 1.0})], 3)
    drawn = mixed.draws(range(BLOCK))
    seen = np.zeros((64, 4), dtype=int)
    np.add.at(seen, (drawn.rows, drawn.templates), 1)
    assert (seen == BLOCK // 64 // 4).all()
    assert (np.bincount(mixed._templates[0].at(np.arange(64), np.zeros(64, dtype=int))) == 16).all()


def test_only_usable_templates_are_drawn():
    mixed = Sampler([Source("a", 300, 3, usable_table(300))], [Stage({"a": 1.0})], 3)
    drawn = mixed.draws(range(2_000))
    assert usable_table(300)[drawn.rows, drawn.templates].all()


@settings(max_examples=30, deadline=None)
@given(EITHER, st.integers(0, 40_000), st.integers(0, 20_000))
def test_counts_are_those_of_the_draws(counted, start, length):
    drawn = counted.draws(range(start, start + length))
    for number, counts in enumerate(counted.counts(start, start + length)):
        assert counts.tolist() == np.bincount(drawn.templates[drawn.sources == number], minlength=3).tolist()


def test_counts_of_a_long_run_add_up_and_take_a_moment():
    mixed = Sampler([Source(str(n), 1_000 * (n + 1), 12) for n in range(50)], [Stage({str(n): 1.0 for n in range(50)})], 0)
    stop = 10**9 + 123
    counts = mixed.counts(7, stop)
    assert sum(int(array.sum()) for array in counts) == stop - 7
    for array in counts:
        assert abs(array.sum() - (stop - 7) / 50) <= 100
        assert array.max() - array.min() <= array.sum() * 0.001


@pytest.mark.parametrize("position", [4_999, 5_000, 12_999, 13_000])
def test_a_stage_begins_at_its_position(position):
    stage = 0 if position < 5_000 else 1 if position < 13_000 else 2
    drawn = STAGED.draws(range(max(0, position - 500), position + 1)) if position in (4_999, 12_999) else None
    drawn = drawn or STAGED.draws(range(position, position + 500))
    assert set(drawn.sources.tolist()) == [{0, 1, 2}, {0}, {1, 2}][stage]


def test_a_task_goes_on_in_the_next_stage_where_it_was():
    """Task b reads 1,500 of its 50 rows' epochs in the first stage and none in the second."""
    before, after = STAGED.reached(5_000), STAGED.reached(13_000)
    assert (after - before).tolist() == [8_000, 0, 0]
    assert before.sum() == 5_000
