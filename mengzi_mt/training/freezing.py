"""Freezing: parameters that a recipe's patterns name are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from mengzi_mt.errors import InputError, nearest


@dataclass(frozen=True)
class Frozen:
    """What was frozen.

    Attributes:
        names: first name of each frozen parameter.
        shared: further names of those that stand in several places (T5's embedding: encoder, decoder, and a tied head).
        parameters: their number of elements.
        trainable: elements of the other parameters.
    """

    names: tuple[str, ...]
    shared: dict[str, tuple[str, ...]]
    parameters: int
    trainable: int

    def sentence(self) -> str:
        """One line for the log; it says which frozen weights act in other places, too."""
        text = f"{self.parameters:,} weights frozen, {self.trainable:,} trained"
        return text + "".join(f"; {name} is also {', '.join(others)}" for name, others in self.shared.items())


def freeze(model: nn.Module, patterns: Sequence[str]) -> Frozen:
    """Set ``requires_grad`` of every parameter by glob patterns on their names (``encoder.*``, ``*.layer_norm.weight``).

    ``*`` also spans dots. A pattern with ``!`` in front takes parameters out again; the last pattern that matches decides, so
    ``["*", "!lm_head.*"]`` trains nothing but the head. A shared parameter is one tensor with several names: a pattern
    that matches any of them decides for all.

    Raises:
        InputError: a pattern that matches nothing, or nothing left to train.
    """
    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        parameters[id(parameter)] = parameter
    chosen: set[int] = set()
    for pattern in patterns:
        glob = pattern.removeprefix("!")
        matched = {key for key, aliases in names.items() if any(fnmatchcase(alias, glob) for alias in aliases)}
        if not matched:
            every = [alias for aliases in names.values() for alias in aliases]
            raise InputError(f"The pattern {pattern!r} matches no parameter", where="training.freeze", fix=nearest(glob, every))
        chosen = chosen - matched if pattern.startswith("!") else chosen | matched
    trainable = sum(parameter.numel() for key, parameter in parameters.items() if key not in chosen)
    if not trainable:
        raise InputError("Every parameter is frozen", where="training.freeze", fix="name fewer, or take some out with `!pattern`")
    for key, parameter in parameters.items():
        parameter.requires_grad_(key not in chosen)
    frozen = [aliases for key, aliases in names.items() if key in chosen]
    return Frozen(
        names=tuple(aliases[0] for aliases in frozen),
        shared={aliases[0]: tuple(aliases[1:]) for aliases in frozen if len(aliases) > 1},
        parameters=sum(parameters[key].numel() for key in chosen),
        trainable=trainable,
    )
