"""ROSITA's first-order importance (arXiv:2103.11367): what the loss would lose with a weight, from gradients alone.

The change of the loss when a weight becomes zero is ``|g w|`` to first order, ``g`` the gradient. Over the steps of the mixture

    I(w) = | w · 1/S Σ_s |g_s| |

as in ROSITA's code, which means the gradients' sizes and not the gradients. A unit's importance is a sum over some of its weights:

    head      Σ I of its columns of o                                     (BERT: of attention.output.dense)
    neuron    Σ I of its row of wi_0, of wi_1 (or of wi) and of its column of wo  (BERT: intermediate.dense, output.dense)
    layer     Σ I of all its weights, but for the table of relative bias, which serves all layers
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mengzi_mt.models.pruned import Units, layers_of, units_of

_SHARED = "relative_attention_bias"


class FirstOrder:
    """Sums the sizes of the gradients of a model's layers over steps.

    Args:
        model: after every backward pass of a whole step, :meth:`add` reads the gradients of its weights.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        layers = tuple(f"{layer}." for stack in layers_of(model).values() for layer in stack)
        named = {name: value for name, value in model.named_parameters() if name.startswith(layers) and _SHARED not in name}
        self._weights = named
        self._sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in named.items()}
        self.steps = 0

    @torch.no_grad()
    def add(self) -> None:
        """Count the gradients that the weights have now as one step."""
        self.steps += 1
        for name, weight in self._weights.items():
            if weight.grad is not None:
                self._sums[name] += weight.grad.abs()

    @torch.no_grad()
    def importance(self) -> dict[str, Tensor]:
        """I of every weight of the layers, by its name."""
        return {name: (self._sums[name] / max(1, self.steps) * weight).abs() for name, weight in self._weights.items()}


def unit_scores(model: PreTrainedModel, importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Importance of every head and neuron, float64 ``(units,)`` by :attr:`~mengzi_mt.models.pruned.Units.name`."""
    return {units.name: _scores(units, importance) for units in units_of(model)}


def _scores(units: Units, importance: Mapping[str, Tensor]) -> Tensor:
    columns = importance[f"{units.writing}.weight"].double().sum(0)
    if units.kind == "neurons":
        for path in units.reading:
            columns = columns + importance[f"{path}.weight"].double().sum(1)
    return columns.view(units.count, units.width).sum(1).cpu()


def layer_scores(model: PreTrainedModel, importance: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Importance of every layer, by stack."""

    def total(layer: str) -> float:
        return sum(float(value.double().sum()) for name, value in importance.items() if name.startswith(f"{layer}."))

    return {stack: [total(layer) for layer in layers] for stack, layers in layers_of(model).items()}
