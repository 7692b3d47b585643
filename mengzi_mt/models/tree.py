"""T5's forward pass over trees of choices: every input is encoded once, every common beginning of its choices decoded once.

Inference only; T5, mT5 and umT5 (whose layers each have a relative bias of their own). Linear layers see the tokens of all
inputs, and the nodes of all trees, in one line without padding; attention goes by groups. A node attends to its ancestors, with
T5's bias for the number of generations between them (in a row of its own a choice would have just these tokens before it, at
these distances), and to its own input. Up to its first cross-attention the decoder knows nothing of the input: that part is
computed once for a tree, not for each of its inputs.

Precision is :mod:`mengzi_mt.models.inference`'s; log-softmax is float32.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mengzi_mt.data.choice_trees import UNSEEN, TreeBatch
from mengzi_mt.models.cross_entropy import CHUNK_BYTES
from mengzi_mt.models.flat import block_bias
from mengzi_mt.models.inference import Block, Inference, blocked_mask, least


class TreeDecoder(Inference):
    """A T5 made ready to score trees."""

    @torch.inference_mode()
    def __call__(self, batch: TreeBatch) -> list[list[float]]:
        """Log-probabilities of every example's choices: sums over their tokens, end-of-sequence included.

        Args:
            batch: anywhere; it is moved to the model's device.
        """
        batch = batch.to(self.device)
        states = self.decode(batch, self.encode(batch))
        edges = self.edge_log_probabilities(states, batch).double().cpu()
        total = torch.zeros(sum(batch.choices), dtype=torch.float64)
        total.index_add_(0, batch.path_choices, edges[batch.path_edges])
        return [part.tolist() for part in total.split(batch.choices)]

    def encode(self, batch: TreeBatch) -> Tensor:
        """Encoder states ``(encoder tokens, d_model)`` in the precision of the products."""
        return self.encode_groups(batch.encoder_ids, [(group.examples, group.encoder) for group in batch.groups])

    def decode(self, batch: TreeBatch, memory: Tensor) -> Tensor:
        """States of all nodes, ``(decoder nodes, d_model)`` in float32, ready for the head."""
        decoder: Any = self.model.decoder
        trees: list[Block] = []
        own: list[Block] = []
        cross: list[Block] = []
        for group in batch.groups:
            blocked = group.encoder.blocked
            mask = None if blocked is None else self.mask(blocked_mask(blocked[:, None, None, :]))
            cross.append((group.examples, group.decoder, group.encoder, mask))
        states = self.model.shared(batch.tree_ids).float()
        for number, block in enumerate(decoder.block):
            if block.layer[0].SelfAttention.has_relative_attention_bias:
                masks = self._tree_masks(block, batch)
                trees = [(one.trees, one.nodes, one.nodes, mask) for one, mask in zip(batch.layouts, masks, strict=True)]
                own = [(group.examples, group.decoder, group.decoder, masks[group.layout]) for group in batch.groups]
            reading = self.norm(block.layer[0].layer_norm, states)
            states += self.attention(block.layer[0].SelfAttention, reading, reading, own if number else trees)
            if number == 0:
                states = states.index_select(0, batch.decoder_nodes)
            reading = self.norm(block.layer[1].layer_norm, states)
            states += self.attention(block.layer[1].EncDecAttention, reading, memory, cross)
            states += self.feed_forward(block.layer[2], states)
        return self.ready_for_head(states)

    def edge_log_probabilities(self, states: Tensor, batch: TreeBatch) -> Tensor:
        """log p of every edge's token at its node, float32 ``(edges,)``; the logits of a few hundred nodes are held at a time."""
        head = self.model.lm_head
        rows = max(1, CHUNK_BYTES // (4 * head.out_features))
        ends = torch.searchsorted(batch.edge_nodes, torch.arange(0, len(states) + rows, rows, device=states.device)).tolist()
        parts = []
        for number, (begin, end) in enumerate(pairwise(ends)):
            first = number * rows
            logits = self.linear(head, states[first : first + rows].to(self.precision)).float()
            parts.append(logits.log_softmax(dim=-1)[batch.edge_nodes[begin:end] - first, batch.edge_tokens[begin:end]])
        return torch.cat(parts)

    def _tree_masks(self, block: Any, batch: TreeBatch) -> list[Tensor]:
        """The block's bias by distance for ancestors, blocked for others: ``(trees, heads, nodes, nodes)`` of each layout."""
        deepest = max(int(layout.distances.max()) for layout in batch.layouts)
        by_distance = block_bias(block, deepest + 1, causal=False)[:, -1].flip(-1)  # (heads, distances)
        masks = []
        for layout in batch.layouts:
            mask = by_distance[:, layout.distances.clamp(min=0)].transpose(0, 1)
            masks.append(self.mask(mask.masked_fill((layout.distances == UNSEEN)[:, None], least(mask))))
        return masks
