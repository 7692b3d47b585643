"""Early-Bird slimming (EarlyBERT, arXiv:2101.00063): a learnt coefficient a unit, L1, and the ticket once the mask stands still.

A head's output and a neuron's activation are multiplied by coefficients ``c``, which begin at 1 and are trained along:

    L = L_task + λ Σ |c|

At every look the units of the smallest ``|c|`` are those that would go now; the others are the mask. The distance between two
masks is the share of units in which they differ (the normalised Hamming distance). When the last distances are all
small, the ticket is drawn: the coefficients are multiplied into the weights, and the units outside of the mask are removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, T5ForConditionalGeneration

from mengzi_mt.compression.pruning_choice import Kept, Selection, kept_units
from mengzi_mt.data.flat import FlatBatch
from mengzi_mt.models.cross_entropy import LossSettings
from mengzi_mt.models.flat import flat_loss
from mengzi_mt.models.flex import flex_loss, uses_flex
from mengzi_mt.models.pruned import Kind, units_of
from mengzi_mt.page import escape
from mengzi_mt.training.batches import StepBatch
from mengzi_mt.training.curves import HEIGHT, PALETTE, STYLE, WIDTH, Axis, Series, chart
from mengzi_mt.training.devices import Devices


class SlimLinear(nn.Linear):
    """A linear layer whose inputs are multiplied by the coefficients of the units that they come from.

    Args:
        linear: its weights are taken over, not copied.
        width: inputs of a unit.
    """

    def __init__(self, linear: nn.Linear, width: int) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.width = width
        self.coefficients = nn.Parameter(torch.ones(linear.in_features // width, device=linear.weight.device))

    def forward(self, states: Tensor) -> Tensor:
        """States ``(..., inputs)`` to ``(..., outputs)``."""
        return functional.linear(states * self.coefficients.repeat_interleave(self.width), self.weight, self.bias)


def slim(model: PreTrainedModel) -> None:
    """Give every head and every neuron of a model a coefficient, in place."""
    for units in units_of(model):
        _replace(model, units.writing, SlimLinear(model.get_submodule(units.writing), units.width))  # type: ignore[arg-type]


@torch.no_grad()
def fold(model: PreTrainedModel) -> None:
    """Multiply the coefficients into the weights, in place: a plain model again, with the same outputs."""
    for units in units_of(model):
        layer: Any = model.get_submodule(units.writing)
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(layer.weight * layer.coefficients.repeat_interleave(layer.width))
        plain.bias = layer.bias
        _replace(model, units.writing, plain)


def _replace(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)


def coefficients(model: PreTrainedModel) -> dict[str, Tensor]:
    """The coefficients of a slimmed model by :attr:`~mengzi_mt.models.pruned.Units.name`, each ``(units,)``."""
    return {units.name: model.get_submodule(units.writing).coefficients for units in units_of(model)}  # type: ignore[misc]


class Slimming:
    """The objective of the search (:class:`mengzi_mt.training.losses.Objective`): the plain loss and the coefficients' L1 norm.

    Args:
        penalty: λ.
        attention: of the recipe's training.
    """

    def __init__(self, penalty: float, attention: str) -> None:
        self.penalty, self.attention = penalty, attention
        self._norm = 0.0

    def reweigh(self, module: nn.Module, batch: StepBatch, devices: Devices) -> StepBatch:
        """The step as it is."""
        return batch

    def measure(self, model: T5ForConditionalGeneration, batch: FlatBatch) -> Tensor:
        """Nothing is asked of the examples."""
        return batch.weights.new_zeros(0)

    def loss(
        self, model: T5ForConditionalGeneration, batch: FlatBatch, terms: LossSettings, *, recompute: bool
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the tokens' losses. λ Σ |c| is multiplied by their weights, as the step is divided by all of them."""
        task_loss = flex_loss if uses_flex(self.attention, batch.labels.device) else flat_loss
        total, losses = task_loss(model, batch, terms, recompute=recompute)
        norm = torch.stack([found.abs().sum() for found in coefficients(model).values()]).sum()
        self._norm = float(norm.detach())
        return total + self.penalty * batch.weights.sum() * norm, losses

    def parts(self, devices: Devices, weight: float) -> dict[str, float]:
        """The penalty of the last step."""
        return {"penalty": self.penalty * self._norm}


def mask_of(model: PreTrainedModel, ratios: Mapping[Kind, float], selection: Selection) -> tuple[Kept, list[str]]:
    """The units of a slimmed model that would stay now, and what has to be said of the choice."""
    sizes = {name: found.detach().abs().double().cpu() for name, found in coefficients(model).items()}
    whole = {name: len(found) for name, found in sizes.items()}
    kept: Kept = {}
    warnings: list[str] = []
    for kind, ratio in ratios.items():
        chosen, said = kept_units([one for one in units_of(model) if one.kind == kind], sizes, whole, ratio, selection)
        kept |= chosen
        warnings += said
    return kept, warnings


def mask_distance(one: Kept, other: Kept, units: int) -> float:
    """Share of ``units`` units that stay in one mask and not in the other."""
    return sum(len(set(one[name]) ^ set(other[name])) for name in one) / units


class MaskWatch:
    """Looks at the mask at each validation of the search, and writes it down (``masks.jsonl``), so that a resumed run goes on.

    Args:
        file: a line a look: step, distance from the mask before (none for the first), and the mask.
        ratios: share of each kind that is to go.
        selection: see :func:`~mengzi_mt.compression.pruning_choice.kept_units`.
        window: so many last distances have to be small.
    """

    def __init__(self, file: Path, ratios: Mapping[Kind, float], selection: Selection, window: int) -> None:
        self.file, self.ratios, self.selection, self.window = file, dict(ratios), selection, window

    def __call__(self, model: T5ForConditionalGeneration, step: int) -> dict[str, float]:
        """The largest of the last distances, ``mask_distance``; 1 where there are too few."""
        before = [look for look in read_looks(self.file) if look["step"] < step]
        mask, _ = mask_of(model, self.ratios, self.selection)
        units = sum(one.count for one in units_of(model) if one.kind in self.ratios)
        distance = mask_distance(before[-1]["mask"], mask, units) if before else None
        looks = [*before, {"step": step, "distance": distance, "mask": mask}]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("".join(json.dumps(look) + "\n" for look in looks), encoding="utf-8")
        last = [look["distance"] for look in looks if look["distance"] is not None][-self.window :]
        return {"mask_distance": max(last) if len(last) == self.window else 1.0}


def read_looks(file: Path) -> list[dict[str, Any]]:
    """What :class:`MaskWatch` wrote."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def distance_picture(looks: list[dict[str, Any]], threshold: float) -> str:
    """The distances between consecutive masks over the steps, as an SVG that stands by itself."""
    points = [(int(look["step"]), float(look["distance"])) for look in looks if look["distance"] is not None]
    level = [(step, threshold) for step in (0, points[-1][0])] if points else []
    title = "Distance between consecutive masks (share of units); dashed: the threshold"
    series = [Series("distance", points), Series("threshold", level, colour=1, dashed=True)]
    place = f'x="5" y="30" width="{WIDTH}" height="{HEIGHT}"'
    colours = ":root { --paper: #fbfbfa; --ink: #1f2328; --soft: #5f6872; --line: #dfe2e6; }\n" + PALETTE.splitlines()[0]
    # as a stretched child of the picture a chart must keep the size that it is given
    style = colours + STYLE.replace("width: 100%; height: auto; ", "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 30} {HEIGHT + 40}" role="img"><style>{style}</style>'
        f'<rect width="100%" height="100%" style="fill: var(--paper)"/><text x="10" y="20" '
        f'style="font: 600 11px sans-serif; fill: var(--ink)">{escape(title)}</text>'
        f"{chart(title, series, Axis('share', zero=True), hover=False, place=place)}</svg>\n"
    )
