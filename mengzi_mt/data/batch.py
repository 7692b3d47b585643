"""A batch of packed rows as tensors: what the data room hands to the model room."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

IGNORED = -100
"""Label of decoder positions that the loss does not count."""


@dataclass(frozen=True)
class PackedBatch:
    """Packed rows. Shapes ``(rows, encoder length)`` and ``(rows, decoder length)``, all int64 but ``weights`` (float32)."""

    encoder_ids: Tensor
    encoder_segments: Tensor
    decoder_ids: Tensor
    decoder_segments: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def tokens(self) -> int:
        """Non-padding tokens of both sides."""
        return int((self.encoder_segments > 0).sum() + (self.decoder_segments > 0).sum())

    @property
    def slots(self) -> int:
        """Token slots of both sides, padding included."""
        return self.encoder_ids.numel() + self.decoder_ids.numel()

    @property
    def target_tokens(self) -> int:
        """Tokens that the loss counts."""
        return int((self.labels != IGNORED).sum())
