"""LoRA (arXiv:2106.09685) through ``peft``: adapters stand inside the model, and a checkpoint is a plain T5 all the same.

``W x`` becomes ``W x + (alpha / rank) B A x`` in the chosen linear layers; only A and B are trained. The model keeps its class and
its modules' names, so neither forward pass needs to know of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mengzi_mt.config import LoraSettings
from mengzi_mt.errors import InputError, nearest

ADAPTER_DIR = "adapter"
_NAME = "default"
_INFIX = f".{_NAME}."
_PEFT_PREFIX = "base_model.model."


class Lora:
    """The adapters of a model. Making it puts them there and freezes everything else; the global random state stays as it was.

    The model computes what it did before, for B starts as zeros (A is drawn as ``peft`` draws it, uniformly).

    Args:
        model: changed in place: each chosen layer gets a wrapper.
        settings: rank, scale, dropout, layers.
        base: folder or hub name of the model without adapters, for whoever loads them apart.
        seed: of A.

    Raises:
        InputError: ``peft`` is not installed, or a target that names no linear layer of T5's blocks.
    """

    def __init__(self, model: T5ForConditionalGeneration, settings: LoraSettings, base: str = "", seed: int = 0) -> None:
        peft = _peft()
        linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        linear.discard("lm_head")  # the loss reads the head's weight itself, past any adapter
        for target in settings.targets:
            if target not in linear:
                raise InputError(
                    f"The model's blocks have no linear layer called {target!r}", where="training.lora.targets",
                    fix=nearest(target, linear),
                )  # fmt: skip
        self.config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
            bias="none",
            task_type="SEQ_2_SEQ_LM",
            base_model_name_or_path=base,
        )
        self.base_hash = weights_hash(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(self.config, model, adapter_name=_NAME)
        self._layers = _adapted_layers(model)
        self._parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def sentence(self) -> str:
        """One line for the log."""
        count = sum(parameter.numel() for parameter in self._parameters.values())
        return f"LoRA of rank {self.config.r} in {len(self._layers)} layers: {count:,} weights trained, all others frozen"

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Inside the ``with`` the model is a plain T5 with the adapters added to its weights, ready to be saved.

        Afterwards the adapters are back and every weight is what it was, bit for bit.
        """
        own: list[Tensor] = []
        try:
            with torch.no_grad():
                for parent, name, layer in self._layers:
                    base = layer.get_base_layer()
                    own.append(base.weight.detach().clone())
                    base.weight += layer.get_delta_weight(_NAME).to(base.weight.dtype)
                    setattr(parent, name, base)
            yield
        finally:
            with torch.no_grad():
                for (parent, name, layer), weight in zip(self._layers, own, strict=False):
                    layer.get_base_layer().weight.copy_(weight)
                    setattr(parent, name, layer)

    def write(self, folder: Path) -> None:
        """Write the adapters in ``peft``'s own format (``adapter_model.safetensors``, ``adapter_config.json``) below a checkpoint.

        ``peft.PeftModel.from_pretrained(base, folder / "adapter")`` reads them.
        """
        target = folder / ADAPTER_DIR
        self.config.save_pretrained(str(target))
        weights = {f"{_PEFT_PREFIX}{name.replace(_INFIX, '.')}": value for name, value in self._weights().items()}
        save_file(weights, str(target / "adapter_model.safetensors"), metadata={"format": "pt"})
        (target / "adapter_model.safetensors").chmod(0o644)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._parameters.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that such a run changes in the model, and the hash of what it leaves as it is."""
        return {"base": self.base_hash, "weights": self._weights()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: adapters of other layers, of another rank, or of another base model.
        """
        if state is None or state["base"] != self.base_hash:
            raise InputError(
                "The run's adapters belong to another base model than the one at hand", where="model.init",
                fix="put back the checkpoint that the run was started from, or set another `output`",
            )  # fmt: skip
        weights = state["weights"]
        wrong = sorted(set(weights) ^ set(self._parameters)) or [
            name for name, value in self._parameters.items() if weights[name].shape != value.shape
        ]
        if wrong:
            raise InputError(
                f"The saved adapters do not fit: {wrong[0]}", where="training.lora",
                fix="resume with the recipe that the run was started with",
            )  # fmt: skip
        for name, value in self._parameters.items():
            value.copy_(weights[name])


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("`training.lora` needs peft", where="training.lora", fix="pip install 'mengzi-mt[lora]'") from error
    return peft


def _adapted_layers(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Every adapted layer with its parent and its name there."""
    from peft.tuners.lora import LoraLayer

    return [
        (parent, name, child)
        for parent in model.modules()
        if not isinstance(parent, LoraLayer)
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer)
    ]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 (first 16 hex digits) of a model's weights as they are in memory: about a second for each gigabyte."""
    digest = hashlib.sha256()
    for name, value in model.named_parameters():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
