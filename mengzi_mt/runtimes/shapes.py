"""Which models a runtime can take."""

from __future__ import annotations

from typing import Any

from transformers import T5ForConditionalGeneration

from mengzi_mt.errors import InputError


def check_uniform(model: T5ForConditionalGeneration, runtime: str) -> None:
    """Raise where a runtime with one number of heads for all layers cannot take the model.

    Raises:
        InputError: an attention has other heads than the configuration says.
    """
    expected = model.config.num_heads * model.config.d_kv
    for name, layer in model.named_modules():
        if not name.endswith(("SelfAttention", "EncDecAttention")):
            continue
        attention: Any = layer
        if attention.q.out_features != expected or getattr(attention, "columns", None) is not None:
            heads = attention.q.out_features / model.config.d_kv
            raise InputError(
                f"The runtime {runtime} does not know a model whose heads differ by layer: {name} has {heads:g} of "
                f"{model.config.num_heads}",
                where="the checkpoint (pruned)", fix="export it --to torch, or prune every layer to the same number of heads",
            )  # fmt: skip
