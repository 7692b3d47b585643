"""Students that begin as chosen layers of a model, or as a model made deeper."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, T5ForConditionalGeneration

from mengzi_mt.compression.distil_recipe import Layers
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import checkpoint_weights, is_tied, untie_head

_SHARED = ".layer.0.SelfAttention.relative_attention_bias."
"""T5's first block holds the table of relative positions of all blocks of its stack."""

_WRITES = (".o.weight", ".wo.weight")
"""The matrices of a T5's block that add to the states."""


def t5_of_layers(
    model: T5ForConditionalGeneration, layers: Layers, decoder_layers: Layers | None = None
) -> T5ForConditionalGeneration:
    """A T5 of some of the layers of another, all else as there; the table of relative positions goes to the new first block.

    A layer that is named n times stands n times in a row, and each copy adds 1/n of what the layer added to the states. So a deeper
    model begins near the model it is made of (progressive stacking, Gong et al., ICML 2019, which leaves out the 1/n).

    Args:
        model: stays as it is.
        layers: of the encoder, counted from 0.
        decoder_layers: by default the same.

    Raises:
        InputError: a layer that is not there, or named out of order.
    """
    config = copy.deepcopy(model.config)
    there = len(model.encoder.block), len(model.decoder.block)  # type: ignore[arg-type]
    encoder = layer_numbers(layers, there[0], "student.layers", repeats=True)
    decoder = layer_numbers(decoder_layers or layers, there[1], "student.decoder_layers", repeats=True)
    config.num_layers, config.num_decoder_layers = len(encoder), len(decoder)
    student = T5ForConditionalGeneration(config)
    if not is_tied(model):
        untie_head(student)
    weights = checkpoint_weights(model)
    for stack, numbers in (("encoder", encoder), ("decoder", decoder)):
        weights = _renumbered(weights, f"{stack}.block.", numbers)
    student.load_state_dict(weights, strict=False)
    return student


def encoder_of_layers(model: PreTrainedModel, layers: Layers) -> PreTrainedModel:
    """A BERT or RoBERTa of some of the layers of another.

    Raises:
        InputError: as :func:`t5_of_layers`.
    """
    base: Any = model.base_model
    config = copy.deepcopy(model.config)
    numbers = layer_numbers(layers, len(base.encoder.layer), "student.layers")
    config.num_hidden_layers = len(numbers)
    student = type(model)(config)
    student.load_state_dict(_renumbered(model.state_dict(), f"{model.base_model_prefix}.encoder.layer.", numbers))
    return student


def layer_numbers(layers: Layers, there: int, where: str, *, repeats: bool = False) -> list[int]:
    """The layers' numbers; ``even`` takes every other one, the first among them.

    Args:
        layers: counted from 0.
        there: how many there are.
        where: of what an error speaks.
        repeats: whether a layer may be named more than once.

    Raises:
        InputError: a layer that is not there, or named out of order.
    """
    numbers = list(range(0, there, 2)) if layers == "even" else [int(number) for number in layers]
    if not numbers or numbers != sorted(numbers if repeats else set(numbers)):
        once = "" if repeats else "each layer once, "
        raise InputError(f"The layers {numbers} are not in rising order", where=where, fix=f"name {once}the lowest first")
    if numbers[0] < 0 or numbers[-1] >= there:
        wrong = next(number for number in numbers if not 0 <= number < there)
        raise InputError(f"There is no layer {wrong} in a stack of {there}", where=where, fix=f"give numbers from 0 to {there - 1}")
    return numbers


def _renumbered(weights: Mapping[str, Tensor], prefix: str, numbers: Sequence[int]) -> dict[str, Tensor]:
    """The weights with the layers behind ``prefix`` renumbered by their places in ``numbers``; others are left out."""
    found = {}
    for name, value in weights.items():
        match = re.fullmatch(rf"{re.escape(prefix)}(\d+)(\..*)", name)
        if match is None or match[2].startswith(_SHARED):
            found[name] = value
            continue
        places = [new for new, number in enumerate(numbers) if number == int(match[1])]
        part = value / len(places) if len(places) > 1 and match[2].endswith(_WRITES) else value
        found |= {f"{prefix}{place}{match[2]}": part.clone() for place in places}
    return found
