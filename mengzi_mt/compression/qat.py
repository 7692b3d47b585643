"""Quantisation-aware fine-tuning: a training recipe goes on from a checkpoint, with int8's rounding in its forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mengzi_mt.config import Recipe, load_recipe


def rounding_recipe(recipe: str, checkpoint: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that starts from the checkpoint and rounds (``training.fake_int8``); the rest is the recipe's own.

    Raises:
        InputError: an unreadable recipe, or one with adapters.
    """
    start = ["model.shape=null", "model.encoder=null", "model.tokenizer=null", f"model.init={checkpoint}"]
    return load_recipe(recipe, [*overrides, *start, "training.fake_int8=true"])
