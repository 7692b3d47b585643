import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.config import LengthSettings
from mengzi_mt.data.packing import micro_batches, pack, pack_lengths
from mengzi_mt.data.tokens import TokenizedExample
from mengzi_mt.errors import InputError

LENGTHS = LengthSettings(max_input=64, max_target=16, rows=((32, 8), (64, 8), (64, 16)))
SIZES = st.lists(st.tuples(st.integers(1, 64), st.integers(1, 16)), max_size=60)


def examples(sizes):
    return [TokenizedExample([1] * a, [2] * b, 1.0, "task", "template", f"r{i}") for i, (a, b) in enumerate(sizes)]


@settings(deadline=None)
@given(SIZES)
def test_every_example_is_packed_exactly_once(sizes):
    rows = pack(examples(sizes), LENGTHS)
    assert sorted(e.row_id for row in rows for e in row.examples) == sorted(f"r{i}" for i in range(len(sizes)))


@settings(deadline=None)
@given(SIZES)
def test_no_row_is_over_its_length_and_none_could_be_shorter(sizes):
    rows = pack(examples(sizes), LENGTHS)
    assert [row.length for row in rows] == sorted(row.length for row in rows)
    for row in rows:
        inputs, targets = (sum(len(getattr(e, side)) for e in row.examples) for side in ("inputs", "targets"))
        holding = [length for length in LENGTHS.rows if inputs <= length[0] and targets <= length[1]]
        assert sum(row.length) == min(map(sum, holding))
        assert row.empty == sum(row.length) - inputs - targets


@settings(deadline=None)
@given(SIZES)
def test_packing_is_a_pure_function_of_the_lengths(sizes):
    found = pack(examples(sizes), LENGTHS)
    assert found == pack(examples(sizes), LENGTHS)
    plan = pack_lengths([a for a, _ in sizes], [b for _, b in sizes], LENGTHS.rows)
    assert [(row.length, [e.row_id for e in row.examples]) for row in found] == [
        (length, [f"r{i}" for i in chosen]) for length, chosen in plan
    ]


def test_no_examples_no_rows():
    assert pack([], LENGTHS) == []


def test_both_sides_decide_what_fits():
    """A long target takes one of the long rows; inputs that fit a row together lie in it together."""
    rows = pack(examples([(40, 2), (24, 6), (20, 14), (44, 2)]), LENGTHS)
    assert [[e.row_id for e in row.examples] for row in rows] == [["r0", "r1"], ["r2", "r3"]]
    assert [(row.length, row.empty) for row in rows] == [((64, 8), 0), ((64, 16), 0)]


def test_the_last_rows_are_planned_together():
    """96 tokens are a row of 64 and one of 32, not two of 64."""
    rows = pack(examples([(32, 2), (32, 2), (32, 2)]), LENGTHS)
    assert [row.length for row in rows] == [(32, 8), (64, 8)]


def test_example_that_fits_no_row_is_an_input_error():
    with pytest.raises(InputError, match="An example of 65 input and 3 target tokens fits no row"):
        pack_lengths([65, 4], [3, 3], LENGTHS.rows)


def realistic(count, seed=0):
    """Lengths spread as those of the real mixture: most labels of a few tokens, some long answers, log-normal inputs."""
    random = np.random.default_rng(seed)
    inputs = np.clip(random.lognormal(4.1, 0.7, count), 12, 512).astype(int)
    targets = np.where(random.random(count) < 0.6, random.integers(2, 5, count), np.clip(random.lognormal(2.3, 0.9, count), 2, 128))
    return inputs.tolist(), targets.astype(int).tolist()


@pytest.mark.parametrize(("step", "least"), [(128, 0.975), (512, 0.98)])
def test_default_row_lengths_fill_both_sides(step, least):
    slots = tokens = 0
    for seed in range(8):
        inputs, targets = realistic(step, seed)
        slots += sum(sum(length) for length, _ in pack_lengths(inputs, targets, LengthSettings().rows))
        tokens += sum(inputs) + sum(targets)
    assert tokens / slots >= least


def test_targets_longer_than_inputs_are_packed_as_well():
    targets, inputs = realistic(1_000)
    rows = pack_lengths(inputs, targets, ((64, 512), (128, 512)))
    assert sorted(index for _, chosen in rows for index in chosen) == list(range(1_000))
    assert (sum(inputs) + sum(targets)) / sum(sum(length) for length, _ in rows) > 0.85


@settings(deadline=None)
@given(SIZES, st.integers(1, 400))
def test_micro_batches_hold_all_rows_of_one_shape_within_the_tokens(sizes, tokens):
    rows = pack(examples(sizes), LENGTHS)
    batches = list(micro_batches(rows, tokens))
    assert all(batches)
    assert [row for batch in batches for row in batch] == rows
    for batch in batches:
        assert len({(row.encoder_length, row.decoder_length) for row in batch}) == 1
        assert len(batch) == 1 or sum(row.encoder_length + row.decoder_length for row in batch) <= tokens


def test_micro_batches_of_one_length_are_equally_large():
    rows = pack(examples([(60, 7)] * 10), LENGTHS)
    assert [len(batch) for batch in micro_batches(rows, 4 * 72)] == [3, 3, 4]
