"""Which device a model runs on."""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter

import torch

from mengzi_mt.errors import InputError, first_line


def pick_device(name: str, where: str) -> torch.device:
    """A device by name; ``auto`` takes CUDA where there is one.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` …
        where: the option or key that names it, for the message.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {name!r} cannot be used: {first_line(error)}", where=where, fix="use auto or cpu") from error
    return device


def slow_bfloat16(precision: str, device: torch.device, fix: str) -> str | None:
    """A warning where this CPU multiplies bfloat16 more slowly than float32, as those without instructions for it do.

    Args:
        precision: what was asked for.
        device: that it runs on.
        fix: what to change, for the end of the sentence.
    """
    if precision != "bfloat16" or device.type != "cpu" or (factor := bfloat16_cost()) < 1.5:
        return None
    return f"this CPU takes {factor:.0f} times as long for a matrix product in bfloat16 as in float32; {fix}"


@lru_cache(maxsize=1)
def bfloat16_cost() -> float:
    """Time of a product of two matrices (256 x 256) in bfloat16 as a multiple of that in float32, on this CPU; measured once."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        times = []
        for _ in range(4):
            start = perf_counter()
            torch.mm(matrix, matrix)
            times.append(perf_counter() - start)
        seconds.append(min(times))
    return seconds[1] / seconds[0]
