"""Which model the downstream tasks use: a folder, a hub name, or the shipped one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.loading import Scorers, load_scorers
from mengzi_mt.evaluation.scoring import PRECISIONS
from mengzi_mt.models.devices import pick_device, slow_bfloat16
from mengzi_mt.resources import resolve, resource_dir
from mengzi_mt.runtimes.export_folder import is_export, read_export

Backend = Literal["torch", "ctranslate2", "onnx"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
INT8 = "int8"
SHIPPED = "mengzi-mt-mini"
"""The folder of ``models/`` that is the default."""


def shipped_model() -> str:
    """The model that comes with the package.

    Raises:
        InputError: its files are missing.
    """
    folder = resource_dir("models") / SHIPPED
    if (folder / "config.json").is_file():
        return str(folder)
    raise InputError(
        "No model was named, and none is shipped here", where=str(resource_dir("models")),
        fix="give a checkpoint's folder or a hub name: Mengzi.load(\"folder\")",
    )  # fmt: skip


def load(
    model: str | Path | None, *, device: str, dtype: str | torch.dtype | None, backend: str | None, max_input: int, batch_size: int
) -> Scorers:
    """What scores and generates. For the arguments see :meth:`mengzi_mt.sdk.mengzi.Mengzi.load`."""
    picked = pick_device(device, "device")
    if max_input < 16 or batch_size < 1:
        raise InputError(f"max_input={max_input}, batch_size={batch_size}", where="load", fix="give at least 16 tokens and 1 text")
    shipped = model is None or (str(model) == SHIPPED and not Path(model).exists())
    place = shipped_model() if shipped else resolve(str(model))
    place, precision = place_for(place, backend, dtype, picked)
    return load_scorers(place, device=picked, precision=precision, max_input=max_input, batch_size=batch_size)


def place_for(place: str, backend: str | None, dtype: str | torch.dtype | None, device: torch.device) -> tuple[str, str]:
    """The folder to load, a converted one where a checkpoint is to run elsewhere than in torch's floats, and the precision.

    Raises:
        InputError: an unknown backend, an export for another one or in another type, a type that there is not.
    """
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"Unknown backend {backend!r}", where="backend", fix=f"use {', '.join(BACKENDS)}")
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    if is_export(place):
        check_export(place, backend, name)
        return place, "float32"  # of what is not the export's
    if backend in (None, "torch") and name != INT8:
        return place, precision_of(dtype, device)
    from mengzi_mt.sdk.conversion import converted  # what exports models takes long to import

    if device.type != "cpu":
        raise InputError(f"Conversions on the way run on a CPU, not on {device}", where="device", fix='set device="cpu"')
    return converted(place, cast("Backend", backend or "torch"), name), "float32"


def precision_of(dtype: str | torch.dtype | None, device: torch.device) -> str:
    """By default float32 on a CPU and bfloat16 elsewhere.

    Raises:
        InputError: another type; float16 overflows in T5.
    """
    if dtype is None:
        return "float32" if device.type == "cpu" else "bfloat16"
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISIONS:
        raise InputError(
            f"The type {name!r} cannot be used",
            where="dtype",
            fix=f"use {', '.join((*PRECISIONS, INT8))} (float16 overflows in T5)",
        )
    if slow := slow_bfloat16(name, device, "leave dtype out for float32"):
        warnings.warn(slow, stacklevel=2)
    return name


def check_export(place: str, backend: str | None, precision: str | None) -> None:
    """Whether an exported folder is what was asked for.

    Raises:
        InputError: it is not; says how to make one.
    """
    found = read_export(Path(place))
    if backend is not None and not found.runtime.startswith(backend):
        raise InputError(
            f"The model is one for {found.runtime}, not for {backend}",
            where=place,
            fix="load the checkpoint that it was exported from",
        )
    if precision is not None and precision != found.precision:
        raise InputError(
            f"The export is in {found.precision}, not in {precision}", where=place, fix="leave dtype out, or load the checkpoint"
        )
