import torch

from mengzi_mt.data.collate import collate
from mengzi_mt.data.packing import PackedRow
from mengzi_mt.data.tokens import TokenizedExample


def row(lengths, *examples):
    return PackedRow(
        *lengths, [TokenizedExample(inputs, targets, weight, "task", "template", "row") for inputs, targets, weight in examples]
    )


def test_targets_are_shifted_within_their_own_segment():
    rows = [row((6, 5), ([11, 12, 1], [21, 1], 1.0), ([13, 1], [22, 23, 1], 0.5)), row((6, 5), ([14, 1], [24, 1], 2.0))]
    batch = collate(rows, pad=0, start=9)
    assert batch.encoder_ids.tolist() == [[11, 12, 1, 13, 1, 0], [14, 1, 0, 0, 0, 0]]
    assert batch.encoder_segments.tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]]
    assert batch.decoder_ids.tolist() == [[9, 21, 9, 22, 23], [9, 24, 0, 0, 0]]
    assert batch.decoder_segments.tolist() == [[1, 1, 2, 2, 2], [1, 1, 0, 0, 0]]
    assert batch.labels.tolist() == [[21, 1, 22, 23, 1], [24, 1, -100, -100, -100]]
    assert batch.weights.tolist() == [[1.0, 1.0, 0.5, 0.5, 0.5], [2.0, 2.0, 0.0, 0.0, 0.0]]
    assert {tensor.dtype for tensor in (batch.encoder_ids, batch.decoder_segments, batch.labels)} == {torch.int64}
    assert batch.weights.dtype == torch.float32


def test_batch_counts_its_tokens_slots_and_targets():
    batch = collate([row((6, 5), ([11, 12, 1], [21, 1], 1.0))], pad=0, start=0)
    assert (batch.tokens, batch.slots, batch.target_tokens) == (5, 11, 2)
    assert batch.to("cpu").labels.tolist() == batch.labels.tolist()
