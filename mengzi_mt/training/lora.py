"""LoRA (arXiv:2106.09685) through ``peft``: the adapters stand inside the model, and an export is a plain T5.

``W x`` becomes ``W x + (alpha / rank) B A x`` in the chosen linear layers; only A and B are trained. The model keeps its class and
its modules' names, so the packed forward pass needs to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mengzi_mt.config import LoraSettings
from mengzi_mt.errors import InputError, nearest

_ADAPTER = "default"


def add_lora(model: T5ForConditionalGeneration, settings: LoraSettings, seed: int = 0) -> int:
    """Put adapters into the model and freeze everything else; returns the number of trained weights.

    The model computes what it did before: B starts as zeros. The global random state is left as it was.

    Raises:
        InputError: ``peft`` is not installed, or a target that names no linear layer.
    """
    peft = _peft()
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    unknown = [target for target in settings.targets if target not in linear]
    if unknown:
        raise InputError(
            f"The model has no linear layer called {unknown[0]!r}", where="training.lora.targets", fix=nearest(unknown[0], linear)
        )
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("`training.lora` needs peft", where="training.lora", fix="pip install 'mengzi-mt[lora]'") from error
    return peft


def _layers(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Every adapted layer with its parent and its name there."""
    from peft.tuners.lora import LoraLayer

    return [
        (parent, name, child)
        for parent in model.modules()
        if not isinstance(parent, LoraLayer)
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer)
    ]


@contextmanager
def merged(model: T5ForConditionalGeneration) -> Iterator[None]:
    """Inside the ``with`` the model is a plain T5 with the adapters added to its weights, ready to be saved.

    Afterwards the adapters are back and every weight is what it was, bit for bit.
    """
    layers = _layers(model)
    own: list[Tensor] = []
    try:
        with torch.no_grad():
            for parent, name, layer in layers:
                base = layer.get_base_layer()
                own.append(base.weight.detach().clone())
                base.weight += layer.get_delta_weight(_ADAPTER).to(base.weight.dtype)
                setattr(parent, name, base)
        yield
    finally:
        with torch.no_grad():
            for (parent, name, layer), weight in zip(layers, own, strict=False):
                layer.get_base_layer().weight.copy_(weight)
                setattr(parent, name, layer)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by name: all of the model that a run trains, and that its checkpoint needs to go on."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items() if ".lora_" in name}


def load_lora_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put saved adapters back into a model that :func:`add_lora` prepared.

    Raises:
        InputError: adapters of other layers or of another rank.
    """
    here = {name: value for name, value in model.state_dict().items() if ".lora_" in name}
    wrong = sorted(set(here) ^ set(state)) or [name for name, value in here.items() if state[name].shape != value.shape]
    if wrong:
        raise InputError(
            f"The saved adapters do not fit: {wrong[0]}",
            where="training.lora",
            fix="resume with the recipe that the run was started with",
        )
    model.load_state_dict(state, strict=False)
