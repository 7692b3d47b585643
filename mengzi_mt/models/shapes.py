"""The T5 v1.1 shapes of this project: gated GELU; a head of its own from ``small`` up, tied below.

``base`` is Mengzi-T5-base's shape (arXiv:2110.06696); ``small`` and ``base`` follow T5 v1.1 (arXiv:2002.05202).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder-decoder."""

    d_model: int
    d_kv: int
    d_ff: int
    layers: int
    heads: int
    vocabulary: int
    tied: bool


SHAPES = {
    "micro": Shape(d_model=128, d_kv=32, d_ff=384, layers=2, heads=4, vocabulary=8_000, tied=True),
    "mini": Shape(d_model=256, d_kv=64, d_ff=640, layers=4, heads=4, vocabulary=16_000, tied=True),
    "small": Shape(d_model=512, d_kv=64, d_ff=1_024, layers=8, heads=6, vocabulary=32_128, tied=False),
    "base": Shape(d_model=768, d_kv=64, d_ff=2_048, layers=12, heads=12, vocabulary=32_128, tied=False),
}
"""Shapes by name. A model takes its tokenizer's vocabulary; the figure here is the shape's usual one."""
