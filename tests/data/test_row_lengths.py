import numpy as np
import pytest

from mengzi_mt.config import LengthSettings
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.row_lengths import measure_fill, propose_rows, token_lengths
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError

RANDOM = np.random.default_rng(3)
INPUTS = RANDOM.integers(5, 60, 512).tolist()
TARGETS = np.where(RANDOM.random(512) < 0.8, 2, RANDOM.integers(2, 16, 512)).tolist()


def test_fill_is_the_share_of_slots_that_hold_tokens():
    inputs, targets = [30, 34, 64, 20, 99], [4, 4, 6, 16, 99]  # the fifth is in no whole step
    fill = measure_fill(inputs, targets, [(64, 8), (64, 16)], 2)
    assert (fill.encoder, fill.decoder) == ((64 + 84) / (3 * 64), 30 / 32)
    assert fill.both == (148 + 30) / (3 * 64 + 32)
    assert (fill.rows_per_step, fill.lengths_per_step) == (1.5, 1.5)


def test_too_few_examples_are_an_input_error():
    with pytest.raises(InputError, match="2 examples are not enough for one step of 3"):
        measure_fill([1, 1], [1, 1], [(8, 8)], 3)


def test_proposals_grow_by_one_get_fuller_and_can_be_set():
    found = list(propose_rows(INPUTS, TARGETS, 256, (64, 16), 64, 0.97, 8))
    assert [len(rows) for rows, _ in found] == list(range(1, len(found) + 1))
    shares = [fill.both for _, fill in found]
    assert shares == sorted(set(shares)) and shares[-1] >= 0.97 > shares[-2]
    for rows, fill in found:
        assert LengthSettings(max_input=64, max_target=16, rows=rows).rows == rows
        assert fill == measure_fill(INPUTS, TARGETS, rows, 64)


def test_proposals_end_with_the_number_asked_for():
    assert len(list(propose_rows(INPUTS, TARGETS, 256, (64, 16), 64, 1.0, 3))) == 3


def test_rows_shorter_than_the_longest_input_are_refused():
    with pytest.raises(InputError, match="Rows of 32 tokens do not hold an input of 64"):
        list(propose_rows(INPUTS, TARGETS, 32, (64, 16), 64, 1.0, 3))


def test_token_lengths_leave_out_what_is_too_long(tokenizer):
    texts = [("今天天气", "好"), ("长" * 200, "好"), ("公园里有很多人", "是的")]
    encoder = Encoder(tokenizer)
    inputs, targets = token_lengths([TextExample(a, b, None, (), 1.0, "t", "n", "r") for a, b in texts], encoder, Limits(64, 8))
    assert inputs == [len(encoder(texts[n][0])) + 1 for n in (0, 2)]
    assert targets == [len(encoder(texts[n][1])) + 1 for n in (0, 2)]
