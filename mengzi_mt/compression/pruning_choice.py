"""Which units stay, from their scores: a share of every layer's, of all layers' together, or the same ones in all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mengzi_mt.errors import InputError
from mengzi_mt.models.pruned import Kind, Units, units_of
from mengzi_mt.models.t5 import parameter_count

Selection = Literal["global", "layer", "alike"]
LEAST: dict[Kind, int] = {"heads": 1, "neurons": 8}
"""So many units of a layer always stay: a ratio never takes a whole layer away."""
Kept = dict[str, list[int]]


def kept_units(
    units: Sequence[Units], scores: Mapping[str, Tensor], whole: Mapping[str, int], ratio: float, selection: Selection
) -> tuple[Kept, list[str]]:
    """The units that stay, and what has to be said of the choice.

    Args:
        units: of one kind, as they are now.
        scores: of each, ``(units,)`` by name; the lowest go.
        whole: how many there were at first, by name; the ratio is one of these.
        ratio: share that is gone afterwards, rounded to whole units.
        selection: ``layer``: that share of every layer's own. ``global``: that share of all together, from whichever layer.
            ``alike``: as ``layer``, and where layers share a table of relative bias, the same heads in all of them, by the sum
            of their scores: what a configuration of ``transformers`` can describe.

    Raises:
        InputError: ``alike`` for layers that differ already.
    """
    if selection == "global":
        return _kept_of_all(units, scores, whole, ratio)
    if selection == "alike":
        scores = _shared_scores(units, scores)
    kept: Kept = {}
    warnings = []
    for one in units:
        wanted = whole[one.name] - round(ratio * whole[one.name])
        stay = min(one.count, max(wanted, LEAST[one.kind]))
        if stay > wanted:
            warnings.append(f"{one.name} keeps {stay} of {one.count} {one.kind}, of which {wanted} were to stay")
        kept[one.name] = _best(scores[one.name], stay)
    return kept, warnings


def _best(scores: Tensor, number: int) -> list[int]:
    """The units of the highest scores, of equal ones the first, in order."""
    return sorted(scores.argsort(descending=True, stable=True)[:number].tolist())


def _kept_of_all(
    units: Sequence[Units], scores: Mapping[str, Tensor], whole: Mapping[str, int], ratio: float
) -> tuple[Kept, list[str]]:
    total = sum(whole[one.name] for one in units)
    remove = round(ratio * total) - (total - sum(one.count for one in units))
    kept: Kept = {one.name: _best(scores[one.name], LEAST[one.kind]) for one in units}
    others = [
        (float(scores[one.name][unit]), place, unit)
        for place, one in enumerate(units)
        for unit in sorted(set(range(one.count)) - set(kept[one.name]))
    ]
    for _, place, unit in sorted(others)[max(0, remove) :]:
        kept[units[place].name].append(unit)
    warnings = []
    if remove > len(others):
        least = LEAST[units[0].kind]
        warnings.append(f"{remove - len(others)} {units[0].kind} more were to go, but every layer keeps at least {least}")
    return {name: sorted(chosen) for name, chosen in kept.items()}, warnings


def _shared_scores(units: Sequence[Units], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Heads that read one table of relative bias score together."""
    if len({one.count for one in units}) > 1:
        raise InputError(
            "The layers differ in size already", where="units.selection: alike", fix="use `layer` or `global`, or an unpruned model"
        )
    shared = dict(scores)
    for stack in ("encoder", "decoder"):
        names = [one.name for one in units if one.name.startswith(stack) and one.name.endswith("SelfAttention")]
        for name in names:
            shared[name] = torch.stack([scores[other] for other in names]).sum(0)
    return shared


def cost(model: PreTrainedModel, units: Units) -> int:
    """Parameters that go with one unit."""
    layers: list[Any] = [model.get_submodule(path) for path in units.reading]
    read = sum(layer.weight[0].numel() + (layer.bias is not None) for layer in layers)
    written = len(model.get_parameter(f"{units.writing}.weight"))
    return int(units.width * (read + written))


def ratio_for(model: PreTrainedModel, parameters: int, selection: Selection) -> float:
    """The share of heads and of neurons alike that has to go for a model of at most so many parameters.

    Raises:
        InputError: fewer than the embedding, the norms and the least units have.
    """
    units = units_of(model)
    whole = {one.name: one.count for one in units}
    prices = {one.name: cost(model, one) for one in units}
    scores = {one.name: torch.zeros(one.count) for one in units}
    total = parameter_count(model)
    steps = max(whole.values()) * len(units)  # finer makes no difference
    low, high = 0, steps

    def size(step: int) -> int:
        gone = 0
        for kind in LEAST:
            kept, _ = kept_units([one for one in units if one.kind == kind], scores, whole, step / steps, selection)
            gone += sum((whole[name] - len(chosen)) * prices[name] for name, chosen in kept.items())
        return total - gone

    if size(steps) > parameters:
        raise InputError(
            f"At least {size(steps):,} parameters stay when only heads and neurons go",
            where=f"units.parameters: {parameters:,}",
            fix="ask for more, or also drop layers and trim the vocabulary",
        )  # fmt: skip
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) <= parameters else (middle + 1, high)
    return low / steps
