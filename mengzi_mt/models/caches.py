"""Keys and values of sequences that are being generated: the input's are computed once, the output's grow by one a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mengzi_mt.data.flat import Side, side_of
from mengzi_mt.models.flat import relative_bias
from mengzi_mt.models.inference import Inference, blocked_mask, laid_out
from mengzi_mt.models.pruned import own_heads

FIRST_ROOM = 16
"""Steps for which room is made at first; it doubles when it is used up."""


class Memory:
    """Keys and values of inputs of like length in every layer.

    Attributes:
        examples: number of inputs.
        keys, values: of each layer, ``(examples, heads, length, width)``.
        mask: additive, ``(examples, 1, 1, length)``; None where no input is padded.
    """

    def __init__(self, examples: int, keys: list[Tensor], values: list[Tensor], mask: Tensor | None) -> None:
        self.examples, self.keys, self.values, self.mask = examples, keys, values, mask

    def kept(self, examples: Tensor) -> Memory:
        """Of these inputs alone."""
        mask = None if self.mask is None else self.mask[examples]
        return Memory(len(examples), [k[examples] for k in self.keys], [v[examples] for v in self.values], mask)


class Decoding:
    """Sequences of one batch on their way: ``beams`` of every input, next to each other.

    Rows are in the order of the inputs; those that are finished are taken out with :meth:`keep`.
    """

    def __init__(self, inference: Inference, inputs: Sequence[Sequence[int]], slack: float, beams: int, steps: int) -> None:
        """Encode the inputs.

        Args:
            inference: the model.
            inputs: token ids with end-of-sequence; neighbours of like length attend together.
            slack: how much longer the longest of a group may be than its shortest.
            beams: sequences of each input.
            steps: at most so many tokens will be generated.
        """
        self.inference = inference
        self.beams = beams
        self.step_number = 0
        self.rows = len(inputs) * beams
        self.layers: list[Any] = [block.layer for block in inference.model.decoder.block]  # type: ignore[union-attr]
        self.width = self.layers[0][0].SelfAttention.key_value_proj_dim
        # a CPU multiplies small blocks of bfloat16 more slowly than the same numbers in float32
        self.type = torch.float32 if inference.device.type == "cpu" else inference.precision
        bias = relative_bias(inference.model.decoder, steps, causal=False)[:, -1].float()  # (heads, distances, falling)
        self.biases = [own_heads(layer[0].SelfAttention, bias) for layer in self.layers]
        self.memories = self._read(inputs, slack)
        self.own = [self._room(layer[0].SelfAttention.n_heads, FIRST_ROOM) for layer in self.layers]

    def _room(self, heads: int, steps: int) -> tuple[Tensor, Tensor]:
        shape = (self.rows, heads, steps, self.width)
        keys, values = (torch.empty(shape, dtype=self.type, device=self.inference.device) for _ in range(2))
        return keys, values

    def _read(self, inputs: Sequence[Sequence[int]], slack: float) -> list[Memory]:
        device, inference = self.inference.device, self.inference
        groups: list[tuple[int, Side]] = []
        start = 0
        for lengths in _alike([len(ids) for ids in inputs], slack):
            side = side_of(start, lengths).to(device)
            groups.append((len(lengths), side))
            start = side.stop
        ids = torch.tensor([token for one in inputs for token in one], device=device)
        states = inference.encode_groups(ids, groups)
        memories = []
        for examples, side in groups:
            mask = None if side.blocked is None else blocked_mask(side.blocked[:, None, None, :])
            memories.append(Memory(examples, [], [], mask))
        for layer in self.layers:
            attention = layer[1].EncDecAttention
            for matrix, name in ((attention.k, "keys"), (attention.v, "values")):
                read = inference.linear(matrix, states)
                for memory, (examples, side) in zip(memories, groups, strict=True):
                    block = laid_out(read, side, examples, attention.n_heads, self.width)
                    getattr(memory, name).append(block.to(self.type).contiguous())
        return memories

    def step(self, tokens: Tensor) -> Tensor:
        """States after reading one more token a row, ``(rows, d_model)`` in float32, ready for the head.

        Args:
            tokens: ``(rows,)``.
        """
        inference, now = self.inference, self.step_number
        if now == self.own[0][0].shape[2]:
            self._grow()
        states = inference.model.shared(tokens).float()
        for number, ((keys, values), layer, biases) in enumerate(zip(self.own, self.layers, self.biases, strict=True)):
            attention = layer[0].SelfAttention
            reading = inference.norm(layer[0].layer_norm, states)
            query, key, value = (
                inference.linear(matrix, reading).view(self.rows, -1, self.width).to(self.type)
                for matrix in (attention.q, attention.k, attention.v)
            )
            keys[:, :, now], values[:, :, now] = key, value
            bias = biases[:, None, biases.shape[1] - now - 1 :]  # (heads, 1, now + 1)
            seen = _attend(query[:, :, None], keys[:, :, : now + 1], values[:, :, : now + 1], bias)
            states += inference.linear(attention.o, seen.view(self.rows, -1).to(inference.precision))
            states += self._cross(number, layer[1].EncDecAttention, inference.norm(layer[1].layer_norm, states))
            states += inference.feed_forward(layer[2], states)
        self.step_number += 1
        return inference.ready_for_head(states)

    def _cross(self, number: int, attention: Any, reading: Tensor) -> Tensor:
        """Attention of a layer over the inputs; an input's beams read its keys and values together."""
        query = self.inference.linear(attention.q, reading).to(self.type)
        pieces, start = [], 0
        for memory in self.memories:
            part = query[start : start + memory.examples * self.beams]
            start += len(part)
            part = part.view(memory.examples, self.beams, -1, self.width).transpose(1, 2)
            out = _attend(part, memory.keys[number], memory.values[number], memory.mask)
            pieces.append(out.transpose(1, 2).reshape(memory.examples * self.beams, -1))
        seen = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return self.inference.linear(attention.o, seen.to(self.inference.precision))

    def _grow(self) -> None:
        for number, (keys, values) in enumerate(self.own):
            room = self._room(keys.shape[1], 2 * keys.shape[2])
            for old, new in zip((keys, values), room, strict=True):
                new[:, :, : old.shape[2]] = old
            self.own[number] = room

    def keep(self, examples: Tensor) -> None:
        """Go on with these inputs alone.

        Args:
            examples: their places among the present ones, ascending, ``(kept,)`` on the device; at least one.
        """
        memories, start, places = [], 0, examples.tolist()
        for memory in self.memories:
            inside = [place - start for place in places if start <= place < start + memory.examples]
            if len(inside) == memory.examples:
                memories.append(memory)
            elif inside:
                memories.append(memory.kept(torch.tensor(inside, device=examples.device)))
            start += memory.examples
        self.memories = memories
        offsets = torch.arange(self.beams, device=examples.device)
        self._take((examples[:, None] * self.beams + offsets).flatten())

    def follow(self, rows: Tensor) -> None:
        """Every row goes on from the history of another one.

        Args:
            rows: whose, ``(rows,)``, of the same input.
        """
        # on an accelerator to ask costs more than to copy
        if rows.device.type != "cpu" or not torch.equal(rows, torch.arange(self.rows)):
            self._take(rows)

    def _take(self, rows: Tensor) -> None:
        self.rows = len(rows)
        self.own = [(keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.own]


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention, in float32 ``(examples, heads, queries, width)``. With few queries two plain products are
    faster on a CPU than its fused kernel."""
    scores = torch.matmul(query, keys.transpose(2, 3)).float()
    if mask is not None:
        scores += mask
    return torch.matmul(scores.softmax(-1).to(values.dtype), values)


def _alike(lengths: Sequence[int], slack: float) -> list[list[int]]:
    """Runs of neighbours that differ by at most ``slack``."""
    runs: list[list[int]] = []
    for length in lengths:
        if runs and max(*runs[-1], length) <= slack * min(*runs[-1], length):
            runs[-1].append(length)
        else:
            runs.append([length])
    return runs
