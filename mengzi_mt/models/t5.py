"""Building, loading and saving T5, with the head that the checkpoint really has.

transformers 5 forces ``tie_word_embeddings=True`` on every T5: a fresh v1.1 model comes out tied, and a saved untied one
is read tied and scaled by older versions. So the head is untied here by hand, and checkpoints are written here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig, T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from mengzi_mt.errors import InputError, first_line
from mengzi_mt.models.pruned import read_section, shrink_to
from mengzi_mt.models.shapes import SHAPES

T5_FAMILY = ("t5", "mt5")
SCORED_FAMILY = (*T5_FAMILY, "umt5")
"""Those that can be scored as trees; umT5's bias of its own in every layer is not trained here."""
WEIGHTS_FILE = "model.safetensors"


def is_tied(model: T5ForConditionalGeneration) -> bool:
    """Whether the output head is the input embedding (T5 v1.0 and the small shapes)."""
    return model.lm_head.weight is model.shared.weight


def shape_config(shape: str, vocabulary: int, dropout: float = 0.0) -> T5Config:
    """The configuration of one of the :data:`~mengzi_mt.models.shapes.SHAPES`."""
    sizes = SHAPES[shape]
    return T5Config.from_dict(
        {
            "vocab_size": vocabulary,
            "d_model": sizes.d_model,
            "d_kv": sizes.d_kv,
            "d_ff": sizes.d_ff,
            "num_layers": sizes.layers,
            "num_decoder_layers": sizes.layers,
            "num_heads": sizes.heads,
            "feed_forward_proj": "gated-gelu",
            "dropout_rate": dropout,
            "tie_word_embeddings": sizes.tied,
            "decoder_start_token_id": 0,
        }
    )


def build_model(shape: str, vocabulary: int, dropout: float = 0.0, seed: int = 0) -> T5ForConditionalGeneration:
    """A T5 of one of the :data:`~mengzi_mt.models.shapes.SHAPES` with random weights.

    Args:
        shape: the shape's name.
        vocabulary: pieces of the tokenizer.
        dropout: rate inside the blocks.
        seed: of the random weights; the global generator is left as it was.
    """
    sizes = SHAPES[shape]
    config = shape_config(shape, vocabulary, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
        if not sizes.tied:
            untie_head(model)
            # T5 v1.1 draws its head from N(0, 1) like the embedding; scaled, so that the first logits are of order one
            nn.init.normal_(model.lm_head.weight, std=sizes.d_model**-0.5)
    return model


def keeps_own_head(config: T5Config) -> bool:
    """Whether the checkpoint of a configuration that was read or made here has a head of its own."""
    return not getattr(config, "scale_decoder_outputs", True)


def untie_head(model: T5ForConditionalGeneration) -> None:
    """Give the model a head of its own (a copy of the embedding, to be loaded or initialised)."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


def output_scale(model: T5ForConditionalGeneration) -> float:
    """What the decoder's states are multiplied with before the head: tied T5 and umT5 scale, mT5 never does."""
    key = {"t5": "scale_decoder_outputs", "umt5": "tie_word_embeddings"}.get(model.config.model_type)
    return float(model.model_dim**-0.5) if key and getattr(model.config, key, False) else 1.0


def load_config(name_or_path: str | Path, dropout: float | None = None, family: Collection[str] = T5_FAMILY) -> T5Config:
    """The configuration of a T5 in a local folder or of a hub name, without its weights.

    Raises:
        InputError: nothing there, or no T5.
    """
    where = str(name_or_path)
    if not Path(where).exists() and (where.startswith((".", "/", "~")) or where.count("/") != 1):
        raise InputError(
            "No model can be loaded: the folder does not exist", where=where, fix="check the path, or give a hub name (owner/name)"
        )
    try:
        config = AutoConfig.from_pretrained(where)
    except Exception as error:  # the library raises OSError, ValueError and JSON errors for one cause
        raise InputError(
            f"No model can be loaded: {first_line(error)}", where=where, fix="give a checkpoint folder or a hub name"
        ) from error
    if config.model_type not in family:
        raise InputError(f"This is a {config.model_type!r} model, not a T5", where=where, fix="give a T5 checkpoint")
    if dropout is not None:
        config.dropout_rate = dropout
    return config


def load_model(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    dropout: float | None = None,
    family: Collection[str] = T5_FAMILY,
) -> T5ForConditionalGeneration:
    """A T5 from a local folder or a hub name, tied or untied and pruned as it was saved.

    Raises:
        InputError: nothing there, no T5, or damaged weights.
    """
    where = str(name_or_path)
    config = load_config(where, dropout, family)
    logging.disable_progress_bar()
    section = read_section(where)
    if section is not None:
        return _load_pruned(where, config, section, dtype)
    try:
        model, report = AutoModelForSeq2SeqLM.from_pretrained(where, config=config, dtype=dtype, output_loading_info=True)
    except Exception as error:
        raise InputError(
            f"The weights cannot be loaded: {type(error).__name__}: {first_line(error)}", where=where,
            fix="the checkpoint is incomplete or damaged; use another one or download it again",
        ) from error  # fmt: skip
    missing = [key for key in report["missing_keys"] if "embed_tokens" not in key and key != "lm_head.weight"]
    if missing:
        raise InputError(
            f"The checkpoint lacks {len(missing)} weights, {sorted(missing)[0]} among them",
            where=where,
            fix="use a complete checkpoint",
        )
    if is_tied(model) and keeps_own_head(config):
        untie_head(model)  # transformers ties a head that equals the embedding, whatever the configuration says
    return model


def _load_pruned(where: str, config: T5Config, section: Mapping[str, Any], dtype: torch.dtype) -> T5ForConditionalGeneration:
    """A T5 whose layers differ in size."""
    model: T5ForConditionalGeneration = AutoModelForSeq2SeqLM.from_config(config)
    if keeps_own_head(config):
        untie_head(model)
    shrink_to(model, section, where)
    nn.Module.to(model, dtype=dtype)
    try:
        missing, unexpected = model.load_state_dict(load_file(str(Path(where) / WEIGHTS_FILE)), strict=False)
    except Exception as error:  # as above; torch's own says last what it is about
        raise InputError(
            f"The weights cannot be loaded: {type(error).__name__}: {str(error).splitlines()[-1].strip()}", where=where,
            fix="the checkpoint is incomplete or damaged; use another one or write it again",
        ) from error  # fmt: skip
    lost = sorted(set(missing) & checkpoint_weights(model).keys()) + unexpected
    if lost:
        raise InputError(f"The checkpoint's weights do not fit: {lost[0]}", where=where, fix="use a complete checkpoint")
    model.name_or_path = where
    return model.eval()


def checkpoint_weights(model: T5ForConditionalGeneration) -> dict[str, Tensor]:
    """The tensors that a checkpoint stores by name: shared ones once."""
    skipped = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} | ({"lm_head.weight"} if is_tied(model) else set())
    return {key: value.detach() for key, value in model.state_dict().items() if key not in skipped}


def save_model(
    model: T5ForConditionalGeneration,
    folder: Path,
    dtype: torch.dtype | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights and configuration so that transformers 4.57 and 5 read the same logits from them.

    Args:
        model: the model.
        folder: an existing folder.
        dtype: of the stored weights; the model's own by default.
        weights: :func:`checkpoint_weights` gathered, where the model holds only shards of them.
    """
    tensors = {
        key: value.to(device="cpu", dtype=dtype or value.dtype).contiguous()
        for key, value in (weights or checkpoint_weights(model)).items()
    }
    save_file(tensors, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes files that only their owner may read
    save_config(model, folder, next(iter(tensors.values())).dtype)


def save_config(model: T5ForConditionalGeneration, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``config.json`` and ``generation_config.json`` alone, so that the head is read tied or untied as it is."""
    config: dict[str, Any] = model.config.to_dict()
    config["tie_word_embeddings"] = is_tied(model)
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(dtype).removeprefix("torch.")
    for key in ("scale_decoder_outputs", "_name_or_path"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    generation = GenerationConfig(
        decoder_start_token_id=model.config.decoder_start_token_id or 0,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    generation.save_pretrained(str(folder))


def parameter_count(model: nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
