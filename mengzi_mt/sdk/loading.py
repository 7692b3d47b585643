"""Which model the downstream tasks use: a folder, a hub name, or the shipped one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.loading import Scorers, load_scorers
from mengzi_mt.evaluation.scoring import PRECISIONS
from mengzi_mt.models.devices import pick_device
from mengzi_mt.resources import resolve, resource_dir
from mengzi_mt.runtimes.export_folder import is_export, read_export

Backend = Literal["torch", "ctranslate2", "onnx"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
SHIPPED = ("mengzi-mt-mini", "bootstrap")
"""Folders of ``models/``, the first that exists is the default."""


def shipped_model() -> str:
    """The model of a checkout.

    Raises:
        InputError: there is none, as in an installed wheel.
    """
    for name in SHIPPED:
        folder = resource_dir("models") / name
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
    place = resolve(str(model)) if model is not None else shipped_model()
    picked = pick_device(device, "device")
    check_backend(place, backend)
    precision = precision_of(dtype, picked)
    if max_input < 16 or batch_size < 1:
        raise InputError(f"max_input={max_input}, batch_size={batch_size}", where="load", fix="give at least 16 tokens and 1 text")
    return load_scorers(place, device=picked, precision=precision, max_input=max_input, batch_size=batch_size)


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
            f"The type {name!r} cannot be used", where="dtype", fix=f"use {' or '.join(PRECISIONS)} (float16 overflows in T5)"
        )
    return name


def exported_backend(place: str) -> str:
    """What a folder was made for: the runtime of an export, torch for a checkpoint.

    Raises:
        InputError: an export that does not read.
    """
    return read_export(Path(place)).runtime if is_export(place) else "torch"


def check_backend(place: str, backend: str | None) -> None:
    """Whether the folder is one for the backend that was asked for.

    Raises:
        InputError: it is not; says how to make one.
    """
    if backend is None:
        return
    if backend not in BACKENDS:
        raise InputError(f"Unknown backend {backend!r}", where="backend", fix=f"use {', '.join(BACKENDS)}")
    found = exported_backend(place)
    if not found.startswith(backend):
        raise InputError(
            f"The model is one for {found}, not for {backend}", where=place,
            fix=f"make one: mengzi-mt compress export MODEL DIR --to {backend}, and load that folder"
            if backend != "torch" else "load the checkpoint that it was exported from",
        )  # fmt: skip
