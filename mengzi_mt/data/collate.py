"""From packed rows to the tensors that the model eats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mengzi_mt.data.batch import IGNORED, PackedBatch
from mengzi_mt.data.packing import PackedRow


def collate(rows: Sequence[PackedRow], pad: int, start: int) -> PackedBatch:
    """Tensors of rows of one length.

    The decoder reads the target shifted right *within its own segment*: each begins with ``start``, and never with the
    last token of the example before it.

    Args:
        rows: of equal encoder and decoder length.
        pad: id of padding.
        start: the decoder's start id.
    """
    shape_in = (len(rows), rows[0].encoder_length)
    shape_out = (len(rows), rows[0].decoder_length)
    encoder_ids = np.full(shape_in, pad, dtype=np.int64)
    encoder_segments = np.zeros(shape_in, dtype=np.int64)
    decoder_ids = np.full(shape_out, pad, dtype=np.int64)
    decoder_segments = np.zeros(shape_out, dtype=np.int64)
    labels = np.full(shape_out, IGNORED, dtype=np.int64)
    weights = np.zeros(shape_out, dtype=np.float32)
    for number, row in enumerate(rows):
        source = target = 0
        for segment, example in enumerate(row.examples, start=1):
            end = source + len(example.inputs)
            encoder_ids[number, source:end] = example.inputs
            encoder_segments[number, source:end] = segment
            source = end
            end = target + len(example.targets)
            decoder_ids[number, target] = start
            decoder_ids[number, target + 1 : end] = example.targets[:-1]
            decoder_segments[number, target:end] = segment
            labels[number, target:end] = example.targets
            weights[number, target:end] = example.weight
            target = end
    arrays = (encoder_ids, encoder_segments, decoder_ids, decoder_segments, labels, weights)
    return PackedBatch(*map(torch.from_numpy, arrays))
