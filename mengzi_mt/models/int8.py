"""Matrices of 8-bit integers: weights rounded by row, activations by token, products summed in 32 bits. CPU only.

A row of a matrix, and a token's state, is its largest absolute value times integers:

    W[i, j] = s_i · w[i, j],   s_i = max_j |W[i, j]| / 127,      w in -127 … 127
    x[t, j] = r_t · a[t, j],   r_t = max_j |x[t, j]| / levels,   a in -levels … levels
    y[t, i] = r_t · s_i · Σ_j a[t, j] · w[i, j]

torch's own dynamic quantisation takes one range for all tokens of a batch, so a score would depend on who shares it; here every
token has its own. The kernel is the same (``quantized.linear_*``): it takes a fixed range, for which tokens are divided by
their largest value. Levels are 127 where the processor adds products of 8 bits without overflow (VNNI), else 63, as in torch's
``reduce_range``: older ones add two of them in 16 bits.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

WEIGHT_LEVELS = 127
SMALLEST = 1e-30
"""A row of zeros is divided by this."""


def activation_levels() -> int:
    """Largest absolute value of a rounded activation on this processor."""
    return 127 if torch.cpu._is_vnni_supported() else 63


class Int8Rows(NamedTuple):
    """A matrix of integers with a factor for each row.

    Attributes:
        values: int8, ``(rows, width)``.
        scales: float32, ``(rows,)``.
    """

    values: Tensor
    scales: Tensor

    def rows(self, places: Tensor) -> Tensor:
        """Some rows in float32, ``(*places, width)``."""
        return self.values[places].float() * self.scales[places][..., None]

    def whole(self) -> Tensor:
        """All of it in float32."""
        return self.values.float() * self.scales[:, None]


def quantise_rows(weight: Tensor) -> Int8Rows:
    """A matrix ``(rows, width)`` rounded by row, half to even."""
    weight = weight.detach().float()
    scales = weight.abs().amax(1).clamp_(min=SMALLEST) / WEIGHT_LEVELS
    return Int8Rows((weight / scales[:, None]).round_().to(torch.int8), scales)


class Int8Embedding(nn.Module):
    """An embedding whose rows are integers."""

    def __init__(self, table: Int8Rows) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of the ids in float32, ``(*ids, width)``."""
        return self.table.rows(ids)


class Int8Linear(nn.Module):
    """A linear layer without bias whose matrix is integers; it rounds what it reads by token.

    Attributes:
        table: the matrix by row, where it is kept beside the kernel's own form; a head needs single rows.
    """

    def __init__(self, matrix: Int8Rows, keep: bool = False) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.values.shape
        self.table = matrix if keep else None
        self.levels = activation_levels()
        zeros = torch.zeros(self.out_features, dtype=torch.long)
        scales = matrix.scales.double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch means to replace quantised tensors; its kernels still ask for them
            held = torch._make_per_channel_quantized_tensor(matrix.values.contiguous(), scales, zeros, 0)
        self.packed: Any = torch.ops.quantized.linear_prepack(held, None)

    def forward(self, states: Tensor) -> Tensor:
        """``(..., in_features)`` to float32 ``(..., out_features)``."""
        states = states.float()
        largest = states.abs().amax(-1, keepdim=True).clamp_(min=SMALLEST)
        out: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            states / largest, 1 / self.levels, self.levels + 1, self.packed
        )
        return out.mul_(largest)

    def rows(self, places: Tensor) -> Tensor:
        """Rows of the matrix in float32, where they are kept."""
        assert self.table is not None
        return self.table.rows(places)
