"""The output head in inference: the most probable tokens of each state, with their log-probabilities over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mengzi_mt.models.inference import Inference
from mengzi_mt.models.int8 import Int8Linear

COLUMNS = 1_024
"""Columns of the head multiplied at a time on a CPU: their logits are still in its cache when they are summed up."""
BUCKET = 128
"""Logits of which only the largest is looked at first, when the largest of all are searched."""
SPARE = 15
"""Candidates beyond those asked for whose logits are computed again in float32 where the head was rounded."""
NEVER = float("-inf")
PADDING = -1


class Head:
    """The output head of a model made ready for inference.

    Logits are those of float32: where products are rounded, the head's give candidates alone, whose logits are then computed
    again from the float32 state. Rounded logits would tie: between 8 and 16 bfloat16 has steps of 1/16.
    """

    def __init__(self, inference: Inference) -> None:
        self.inference = inference
        self.layer: Any = inference.model.lm_head
        self.exact = inference.precision == torch.float32 and not isinstance(self.layer, Int8Linear)
        self._buffer = torch.empty(0)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.layer.out_features)

    def top(self, states: Tensor, number: int, allowed: Sequence[Sequence[int]] | None = None) -> tuple[Tensor, Tensor]:
        """The most probable tokens of every state, the best first.

        Args:
            states: ``(rows, d_model)`` in float32.
            number: of tokens wanted.
            allowed: the only tokens that may be chosen at each state. Log-probabilities remain those over all tokens.

        Returns:
            Tokens and log-probabilities, ``(rows, number)``; :data:`NEVER` where too few are allowed.
        """
        logits, total = self._logits(states)
        tokens, found = _largest(logits, number if self.exact else min(number + SPARE, self.vocabulary))
        if not self.exact:
            again = self._again(states, tokens)
            # what all others weigh is known to the rounding of each, which evens out; the candidates' own weight is exact
            others = (1 - (found - total[:, None]).exp().sum(1)).clamp(min=1e-9).log() + total
            total = torch.cat([again, others[:, None]], 1).logsumexp(1)
            found = again
        if allowed is not None:
            tokens = _padded(allowed, number, states.device)
            found = logits.gather(1, tokens.clamp(min=0)).masked_fill(tokens == PADDING, NEVER)
            if not self.exact:
                kept = found.topk(min(number + SPARE, tokens.shape[1]), dim=1)
                tokens = tokens.gather(1, kept.indices)
                found = self._again(states, tokens.clamp(min=0)).masked_fill(kept.values == NEVER, NEVER)
        if allowed is not None or not self.exact:
            found, places = found.topk(number, dim=1)
            tokens = tokens.gather(1, places).clamp(min=0)
        return tokens, found - total[:, None]

    def _logits(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """All logits ``(rows, vocabulary, padded)`` and the logarithm of the sum of their exponentials ``(rows,)``, in float32."""
        if not self.exact:
            logits = self.inference.linear(self.layer, states.to(self.inference.precision)).float()
            return _in_buckets(logits), logits.logsumexp(1)
        if states.device.type != "cpu":
            logits = functional.linear(states, self.layer.weight.float())
            return _in_buckets(logits), logits.logsumexp(1)
        logits = self._space(len(states))
        parts = []
        for begin in range(0, self.vocabulary, COLUMNS):
            block = logits[:, begin : min(begin + COLUMNS, self.vocabulary)]
            torch.mm(states, self.layer.weight[begin : begin + COLUMNS].float().t(), out=block)
            largest = block.amax(1)
            parts.append((block - largest[:, None]).exp_().sum(1).log_().add_(largest))
        return logits, torch.stack(parts, 1).logsumexp(1)

    def _space(self, rows: int) -> Tensor:
        """Room for the logits of so many rows, kept from step to step; what is beyond the vocabulary is never the largest."""
        if len(self._buffer) < rows:
            self._buffer = torch.full((rows, -(-self.vocabulary // BUCKET) * BUCKET), NEVER)
        return self._buffer[:rows]

    def _again(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The logits of some tokens in float32, ``(rows, tokens)``."""
        rows = self.layer.rows(tokens) if isinstance(self.layer, Int8Linear) else self.layer.weight[tokens].float()
        return torch.bmm(rows, states[:, :, None])[:, :, 0]


class LogitsHead(Head):
    """Takes the logits of a runtime that has the head in it for the states."""

    def __init__(self, vocabulary: int) -> None:
        self.exact, self._vocabulary = True, vocabulary

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self._vocabulary

    def _logits(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return _in_buckets(states), states.logsumexp(1)


def _largest(logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Places and values of the largest logits: they lie in the buckets whose largest are largest."""
    buckets = logits.view(len(logits), -1, BUCKET)
    tops = buckets.amax(2)
    chosen = tops.topk(min(number, tops.shape[1]), dim=1).indices
    inside = buckets.gather(1, chosen[:, :, None].expand(-1, -1, BUCKET)).flatten(1)
    values, places = inside.topk(number, dim=1)
    return chosen.gather(1, places // BUCKET) * BUCKET + places % BUCKET, values


def _in_buckets(logits: Tensor) -> Tensor:
    missing = -logits.shape[1] % BUCKET
    return functional.pad(logits, (0, missing), value=NEVER) if missing else logits


def _padded(allowed: Sequence[Sequence[int]], number: int, device: torch.device) -> Tensor:
    """The allowed tokens of each row, ``(rows, longest)``, at least ``number`` wide."""
    width = max(number, max(len(tokens) for tokens in allowed))
    return torch.tensor([[*tokens, *[PADDING] * (width - len(tokens))] for tokens in allowed], device=device)
