"""A T5 in 8-bit integers, run by this package's own scoring and generation (:mod:`mengzi_mt.models.int8`).

The file holds int8 matrices with a factor for each row, and norms and relative biases in float32:

    encoder.block.0.layer.0.SelfAttention.q.weight          int8     (out, in)
    encoder.block.0.layer.0.SelfAttention.q.weight.scale    float32  (out,)
    encoder.block.0.layer.0.layer_norm.weight               float32  (d_model,)

The embedding is rounded by row as well (a row is a token), and where it is the head too, it is stored once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration

from mengzi_mt.errors import InputError, first_line
from mengzi_mt.models.int8 import Int8Embedding, Int8Linear, Int8Rows, quantise_rows
from mengzi_mt.models.pruned import read_section, shrink_to
from mengzi_mt.models.t5 import SCORED_FAMILY, checkpoint_weights, load_config

RUNTIME = "torch-int8"
WEIGHTS = f"{RUNTIME}/int8.safetensors"
SCALE = ".scale"
EMBEDDING = "shared.weight"
HEAD = "lm_head.weight"


def matrix_names(model: nn.Module) -> set[str]:
    """Names of the weights that are rounded: the linear layers' and the embedding."""
    return {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)} | {EMBEDDING}


def write_int8(model: T5ForConditionalGeneration, folder: Path) -> None:
    """Round a model's matrices and write them."""
    matrices = matrix_names(model)
    tensors: dict[str, Tensor] = {}
    for name, weight in checkpoint_weights(model).items():
        if name in matrices:
            tensors[name], tensors[name + SCALE] = quantise_rows(weight.cpu())
        else:
            tensors[name] = weight.cpu().float().contiguous()
    path = folder / WEIGHTS
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)


def load_int8(folder: Path, device: torch.device | str = "cpu") -> T5ForConditionalGeneration:
    """The model with :class:`~mengzi_mt.models.int8.Int8Linear` and ``Int8Embedding`` in place of its layers.

    It serves :class:`~mengzi_mt.models.inference.Inference` alone. No matrix is ever there in float32, but for those without
    content out of which a pruned model is cut.

    Raises:
        InputError: damaged weights, or another device than the CPU.
    """
    if torch.device(device).type != "cpu":
        raise InputError(
            "An int8 export of torch runs on a CPU alone", where=f"device {device}", fix="use cpu, or export to ctranslate2"
        )
    config = load_config(folder, family=SCORED_FAMILY)
    section = read_section(folder)
    with torch.device("meta" if section is None else "cpu"):  # a pruned model is cut out of a whole one
        model: Any = AutoModelForSeq2SeqLM.from_config(config)
    if section is not None:
        shrink_to(model, section, str(folder))
    try:
        with safe_open(str(folder / WEIGHTS), "pt") as file:
            _fill(model, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no mapping
    except (SafetensorError, KeyError, OSError, RuntimeError) as error:
        raise InputError(
            f"The int8 weights cannot be loaded: {type(error).__name__}: {first_line(error)}", where=str(folder / WEIGHTS),
            fix="copy the export again, or export the checkpoint again",
        ) from error  # fmt: skip
    return model.eval()  # type: ignore[no-any-return]


def _fill(model: Any, tensors: dict[str, Tensor]) -> None:
    """Put the stored tensors into an empty model."""
    own_head = HEAD in tensors
    table = _rows(tensors, EMBEDDING)
    for name, layer in [*model.named_modules()]:
        if isinstance(layer, nn.Linear) and name != "lm_head":
            _replace(model, name, Int8Linear(_rows(tensors, f"{name}.weight")))
    model.lm_head = Int8Linear(_rows(tensors, HEAD) if own_head else table, keep=True)
    embedding = Int8Embedding(table)
    model.shared = model.encoder.embed_tokens = model.decoder.embed_tokens = embedding
    missing, unknown = model.load_state_dict(tensors, strict=False, assign=True)
    if missing or unknown:
        raise KeyError(f"weights do not fit the configuration: {(missing or unknown)[0]}")


def _rows(tensors: dict[str, Tensor], name: str) -> Int8Rows:
    return Int8Rows(tensors.pop(name), tensors.pop(name + SCALE))


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
