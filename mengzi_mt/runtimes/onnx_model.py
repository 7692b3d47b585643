"""A T5 run by ONNX Runtime on a CPU: two graphs, and this package's own trees, greedy decoding and beam search over them.

In int8, ``onnxruntime.quantization`` rounds every matrix by column and, while running, the states by one range for all rows of a
batch: there a score depends a little on who shares the batch, unlike everywhere else in this package.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.choice_trees import UNSEEN, ChoiceTree
from mengzi_mt.errors import InputError, first_line
from mengzi_mt.models.decoding import TokenSearch
from mengzi_mt.models.head import LogitsHead
from mengzi_mt.models.int8 import Int8Rows, quantise_rows
from mengzi_mt.models.t5 import is_tied
from mengzi_mt.runtimes.onnx_graphs import DECODER, ENCODER, HEAD, write_graphs
from mengzi_mt.runtimes.shapes import check_uniform

RUNTIME = "onnx"
EMBEDDING = "embedding.safetensors"
"""The embedding, where it is not the head."""
LOGIT_BYTES = 2**26
"""Of the logits of one pass over trees."""


def _library(name: str = "onnxruntime") -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed", where=name, fix="pip install 'mengzi-mt[onnx]'") from error


def write_onnx(model: T5ForConditionalGeneration, folder: Path, precision: str) -> None:
    """Write both graphs, and the embedding where it is not the head.

    Raises:
        InputError: a library is missing, or heads that differ by layer.
    """
    for name in ("onnx", "onnxruntime", "onnxscript"):
        _library(name)
    check_uniform(model, RUNTIME)
    place = folder / RUNTIME
    place.mkdir(exist_ok=True)
    if precision == "float32":
        write_graphs(model, place)
    else:
        with tempfile.TemporaryDirectory(dir=folder) as plain:
            write_graphs(model, Path(plain))
            for name in (ENCODER, DECODER):
                _quantise(Path(plain) / name, place / name)
    if not is_tied(model):
        weight = model.shared.weight.detach().float()
        rows = Int8Rows(weight, torch.ones(len(weight))) if precision == "float32" else quantise_rows(weight)
        save_file(rows._asdict(), str(place / EMBEDDING))
        (place / EMBEDDING).chmod(0o644)


def _quantise(plain: Path, path: Path) -> None:
    quantization = _library("onnxruntime.quantization")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns that the graph was not preprocessed, which the exporter's optimiser has done
    try:
        quantization.quantize_dynamic(
            plain, path, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=quantization.QuantType.QInt8
        )
    finally:
        root.setLevel(level)


def _embedding(folder: Path) -> Int8Rows:
    """The table of tokens: from its own file, else the head's columns."""
    if (folder / EMBEDDING).is_file():
        return Int8Rows(**load_file(folder / EMBEDDING))
    onnx, helper = _library("onnx"), _library("onnx.numpy_helper")
    stored = {one.name: one for one in onnx.load(str(folder / DECODER)).graph.initializer}
    if HEAD in stored:
        table = torch.from_numpy(helper.to_array(stored[HEAD]).T.copy())
        return Int8Rows(table, torch.ones(len(table)))
    values, scales = (helper.to_array(stored[HEAD + kind]) for kind in ("_quantized", "_scale"))
    return Int8Rows(torch.from_numpy(values.T.copy()), torch.from_numpy(scales.copy()))


class OnnxModel:
    """Both sessions."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu", start: int = 0) -> None:
        """Load an export folder.

        Args:
            folder: the export.
            device: only ``cpu``.
            start: the decoder's start id.

        Raises:
            InputError: the library is missing, another device, or files that it cannot read.
        """
        if torch.device(device).type != "cpu":
            raise InputError("An ONNX export runs on a CPU alone here", where=f"device {device}", fix="use cpu, or the checkpoint")
        self.library, where = _library(), folder / RUNTIME
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        try:
            self.encoder, self.decoder = (
                self.library.InferenceSession(str(where / name), options, providers=["CPUExecutionProvider"])
                for name in (ENCODER, DECODER)
            )
            self.table = _embedding(where)
        except Exception as error:  # the library raises classes of its own that share no base
            raise InputError(
                f"ONNX Runtime cannot load the export: {first_line(error)}", where=str(where), fix="export the checkpoint again"
            ) from error
        self.start = start
        self.outputs = [one.name for one in self.decoder.get_outputs()]
        self.memory_names = [one.name for one in self.encoder.get_outputs()]
        shape = next(one.shape for one in self.decoder.get_inputs() if one.name.startswith("past."))
        self.heads, self.width = shape[1], shape[3]

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self.table.values)

    def value(self, array: Tensor | np.ndarray[Any, Any]) -> Any:
        """An array as the library takes it."""
        return self.library.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def embedded(self, ids: Tensor) -> Any:
        """States of ids ``(rows, tokens)``."""
        return self.value(self.table.rows(ids).numpy())

    def read(self, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The decoder's feeds that come of the inputs: ``known``, and keys and values of its attention over them."""
        longest = max(map(len, inputs))
        ids = torch.zeros((len(inputs), longest), dtype=torch.long)
        known = torch.zeros((len(inputs), longest))
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            known[row, : len(tokens)] = 1
        feeds = {"embedded": self.embedded(ids), "known": self.value(known.numpy())}
        memory = self.encoder.run_with_ort_values(self.memory_names, feeds)
        return {"known": feeds["known"], **dict(zip(self.memory_names, memory, strict=True))}

    def past(self, rows: int) -> dict[str, Any]:
        """The feeds of a sequence that has not begun."""
        nothing = self.value(np.zeros((rows, self.heads, 0, self.width), dtype=np.float32))
        return {name.replace("memory.", "past."): nothing for name in self.memory_names}

    def decode(self, ids: Tensor, distances: Tensor, feeds: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Logits ``(rows, nodes, vocabulary)`` and the past with the new nodes.

        Args:
            ids: ``(rows, nodes)``.
            distances: ``(rows, nodes, past + nodes)``.
            feeds: of :meth:`read` and :meth:`past`.
        """
        own = {"embedded": self.embedded(ids), "distances": self.value(distances.numpy())}
        logits, *present = self.decoder.run_with_ort_values(self.outputs, {**own, **feeds})
        names = [name.replace("present.", "past.") for name in self.outputs[1:]]
        return torch.from_numpy(logits.numpy()), dict(zip(names, present, strict=True))

    @torch.inference_mode()
    def score_trees(self, examples: Sequence[tuple[Sequence[int], ChoiceTree]]) -> list[list[float]]:
        """Log-probabilities of every example's choices, as :class:`mengzi_mt.models.tree.TreeDecoder` gives them."""
        results: list[list[float]] = []
        most = max(tree.nodes for _, tree in examples)
        size = max(1, LOGIT_BYTES // (4 * most * self.vocabulary))
        for begin in range(0, len(examples), size):
            results += self._score(examples[begin : begin + size])
        return results

    def _score(self, examples: Sequence[tuple[Sequence[int], ChoiceTree]]) -> list[list[float]]:
        most = max(tree.nodes for _, tree in examples)
        ids = torch.zeros((len(examples), most), dtype=torch.long)
        distances = torch.full((len(examples), most, most), UNSEEN)
        for row, (_, tree) in enumerate(examples):
            ids[row, : tree.nodes] = tree.tokens
            distances[row, : tree.nodes, : tree.nodes] = tree.distances
        feeds = self.read([inputs for inputs, _ in examples]) | self.past(len(examples))
        logits, _ = self.decode(ids, distances, feeds)
        results = []
        for row, (_, tree) in enumerate(examples):
            totals = logits[row, : tree.nodes].logsumexp(1)
            edges = (logits[row, tree.edge_nodes, tree.edge_tokens] - totals[tree.edge_nodes]).double()
            sums = torch.zeros(tree.choices, dtype=torch.float64)
            results.append(sums.index_add_(0, tree.path_choices, edges[tree.path_edges]).tolist())
        return results


class OnnxSearch(TokenSearch):
    """Greedy decoding and beam search with the sessions."""

    def __init__(self, model: OnnxModel, *, end: int, steps: int) -> None:
        """Args as of :class:`mengzi_mt.models.decoding.Decoder`."""
        super().__init__(LogitsHead(model.vocabulary), torch.device("cpu"), start=model.start, end=end, steps=steps)
        self.model = model

    def begin(self, inputs: Sequence[Sequence[int]], beams: int) -> OnnxSteps:
        """Sequences of one batch before their first token."""
        return OnnxSteps(self.model, inputs, beams)


class OnnxSteps:
    """Sequences of one batch on their way, ``beams`` of every input next to each other, each with what it read."""

    def __init__(self, model: OnnxModel, inputs: Sequence[Sequence[int]], beams: int) -> None:
        self.model, self.beams = model, beams
        self.past = model.past(len(inputs) * beams)
        self.memory = model.read(inputs)
        if beams > 1:
            self.memory = self._taken(self.memory, np.repeat(np.arange(len(inputs)), beams))
        self.number = 0

    def step(self, tokens: Tensor) -> Tensor:
        """Logits ``(rows, vocabulary)`` after reading one more token a row."""
        distances = torch.arange(self.number, -1, -1).expand(len(tokens), 1, -1)
        logits, self.past = self.model.decode(tokens[:, None], distances, self.memory | self.past)
        self.number += 1
        return logits[:, 0]

    def keep(self, examples: Tensor) -> None:
        """Go on with these inputs alone."""
        rows = (examples[:, None] * self.beams + torch.arange(self.beams)).flatten().numpy()
        self.memory, self.past = self._taken(self.memory, rows), self._taken(self.past, rows)

    def follow(self, rows: Tensor) -> None:
        """Every row goes on from the history of another one of the same input."""
        if not torch.equal(rows, torch.arange(len(rows))):
            self.past = self._taken(self.past, rows.numpy())

    def _taken(self, feeds: dict[str, Any], rows: np.ndarray[Any, Any]) -> dict[str, Any]:
        return {name: self.model.value(one.numpy()[rows]) for name, one in feeds.items()}
