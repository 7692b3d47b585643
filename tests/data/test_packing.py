from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.config import LengthSettings
from mengzi_mt.data.packing import micro_batches, pack
from mengzi_mt.data.tokens import TokenizedExample

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
def test_no_row_is_over_its_length_and_what_is_left_is_right(sizes):
    for row in pack(examples(sizes), LENGTHS):
        assert (row.encoder_length, row.decoder_length) in LENGTHS.rows
        assert sum(len(e.inputs) for e in row.examples) == row.encoder_length - row.encoder_left <= row.encoder_length
        assert sum(len(e.targets) for e in row.examples) == row.decoder_length - row.decoder_left <= row.decoder_length


@settings(deadline=None)
@given(SIZES)
def test_an_example_lies_in_the_first_length_that_holds_it(sizes):
    for row in pack(examples(sizes), LENGTHS):
        for e in row.examples:
            first = next(length for length in LENGTHS.rows if len(e.inputs) <= length[0] and len(e.targets) <= length[1])
            assert (row.encoder_length, row.decoder_length) == first


@settings(deadline=None)
@given(SIZES)
def test_packing_is_deterministic(sizes):
    assert pack(examples(sizes), LENGTHS) == pack(examples(sizes), LENGTHS)


def test_best_fit_goes_into_the_fullest_row_that_still_takes_it():
    rows = pack(examples([(24, 1), (20, 1), (8, 1), (12, 1)]), LENGTHS)
    assert [[e.row_id for e in row.examples] for row in rows] == [["r0", "r2"], ["r1", "r3"]]


@settings(deadline=None)
@given(SIZES, st.integers(1, 400))
def test_micro_batches_hold_all_rows_of_one_shape_within_the_tokens(sizes, tokens):
    rows = pack(examples(sizes), LENGTHS)
    batches = list(micro_batches(rows, tokens))
    assert [row for batch in batches for row in batch] == rows
    for batch in batches:
        assert len({(row.encoder_length, row.decoder_length) for row in batch}) == 1
        assert len(batch) == 1 or sum(row.encoder_length + row.decoder_length for row in batch) <= tokens
