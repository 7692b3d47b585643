"""Which device a model runs on."""

from __future__ import annotations

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
