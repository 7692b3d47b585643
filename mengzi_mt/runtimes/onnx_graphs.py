"""T5 as two graphs for ONNX Runtime, in plain products and softmax (eager attention, the only kind that the exporter gets right).

    encoder   embedded (batch, length, d_model), known (batch, length)
              -> keys and values of every decoder layer's attention over the input, (batch, heads, length, width)
    decoder   embedded (batch, nodes, d_model), distances (batch, nodes, past + nodes), known, those keys and values,
              keys and values of the past of every layer, (batch, heads, past, width)
              -> logits (batch, nodes, vocabulary), keys and values with the new nodes

One decoder serves both uses: a step of generation has one node and a past; the scoring of a tree of choices has all its nodes and
no past. ``distances`` says how many generations above the row's node the column's is, :data:`UNSEEN` for others, and T5's relative
bias is looked up by it: beyond ``relative_attention_max_distance`` all distances share one entry. Embeddings are looked up outside,
so that a table that is the head too is stored once.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.choice_trees import UNSEEN
from mengzi_mt.models.flat import block_bias
from mengzi_mt.models.t5 import output_scale

BLOCKED = -1e9
"""Added to the scores of what a token does not see."""
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
HEAD = "head.weight"
"""Name of the head's matrix in the decoder's file, ``(d_model, vocabulary)``."""


class _Matrix(nn.Module):
    """A linear layer whose matrix is stored as the product takes it, ``(in, out)``."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().float().t().contiguous(), requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        return states @ self.weight


class _Norm(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().float(), requires_grad=False)
        self.epsilon = layer.variance_epsilon

    def forward(self, states: Tensor) -> Tensor:
        return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class _Attention(nn.Module):
    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.width = attention.n_heads, attention.key_value_proj_dim
        self.q, self.k, self.v, self.o = (_Matrix(layer) for layer in (attention.q, attention.k, attention.v, attention.o))

    def parted(self, states: Tensor) -> Tensor:
        """``(batch, tokens, heads * width)`` as ``(batch, heads, tokens, width)``."""
        return states.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        scores = self.parted(self.q(states)) @ keys.transpose(2, 3) + bias
        return self.o((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, dense: Any, gelu: bool) -> None:
        super().__init__()
        self.gated, self.gelu, self.act = hasattr(dense, "wi_0"), gelu, dense.act
        self.wi = _Matrix(dense.wi_0 if self.gated else dense.wi)
        self.wi_1 = _Matrix(dense.wi_1) if self.gated else None
        self.wo = _Matrix(dense.wo)

    def forward(self, states: Tensor) -> Tensor:
        hidden = self.wi(states)
        hidden = functional.gelu(hidden, approximate="tanh") if self.gelu else self.act(hidden)
        return self.wo(hidden * self.wi_1(states) if self.wi_1 is not None else hidden)


def _layers(stack: Any, gelu: bool) -> nn.ModuleList:
    """Each layer's norms, attentions and feed-forward layer, in order."""
    layers = nn.ModuleList()
    for block in stack.block:
        parts: list[nn.Module] = []
        for layer in block.layer:
            parts.append(_Norm(layer.layer_norm))
            attention = getattr(layer, "SelfAttention", getattr(layer, "EncDecAttention", None))
            parts.append(_FeedForward(layer.DenseReluDense, gelu) if attention is None else _Attention(attention))
        layers.append(nn.ModuleList(parts))
    return layers


class EncoderGraph(nn.Module):
    """The encoder, and the decoder's keys and values of its states."""

    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        encoder: Any = model.encoder
        gelu = model.config.dense_act_fn == "gelu_new"
        self.farthest = model.config.relative_attention_max_distance
        bias = block_bias(encoder.block[0], self.farthest + 1, causal=False).detach().float()  # (heads, query, key)
        table = torch.cat([bias[:, 1:, 0].flip(1), bias[:, 0]], 1)  # by key minus query, from -farthest to farthest
        self.table = nn.Parameter(table.t().contiguous(), requires_grad=False)
        self.layers: Any = _layers(encoder, gelu)
        self.norm = _Norm(encoder.final_layer_norm)
        decoder: Any = model.decoder
        self.cross: Any = nn.ModuleList(_Attention(block.layer[1].EncDecAttention) for block in decoder.block)
        for attention in self.cross:
            del attention.q, attention.o

    def forward(self, embedded: Tensor, known: Tensor) -> list[Tensor]:
        """Keys and values of each decoder layer in turn."""
        places = torch.arange(embedded.shape[1])
        distances = (places[None, :] - places[:, None]).clamp(-self.farthest, self.farthest) + self.farthest
        bias = self.table[distances].permute(2, 0, 1)[None] + (1 - known[:, None, None, :]) * BLOCKED
        states = embedded
        for norm, attention, norm_2, dense in self.layers:
            read = norm(states)
            states = states + attention(read, attention.parted(attention.k(read)), attention.parted(attention.v(read)), bias)
            states = states + dense(norm_2(states))
        states = self.norm(states)
        return [one.parted(matrix(states)) for one in self.cross for matrix in (one.k, one.v)]


class DecoderGraph(nn.Module):
    """The decoder and the head."""

    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        decoder: Any = model.decoder
        self.farthest = model.config.relative_attention_max_distance
        bias = block_bias(decoder.block[0], self.farthest + 1, causal=False).detach().float()
        self.table = nn.Parameter(bias[:, -1].flip(-1).t().contiguous(), requires_grad=False)  # by distance, 0 to farthest
        layers: Any = _layers(decoder, model.config.dense_act_fn == "gelu_new")
        for _, _, _, cross, _, _ in layers:
            del cross.k, cross.v
        self.layers: Any = layers
        self.norm = _Norm(decoder.final_layer_norm)
        self.head = _Matrix(model.lm_head)
        self.scale = output_scale(model)

    def forward(
        self, embedded: Tensor, distances: Tensor, known: Tensor, memory: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, and keys and values of each layer in turn with the new nodes."""
        bias = self.table[distances.clamp(0, self.farthest)].permute(0, 3, 1, 2)
        bias = bias + (distances == UNSEEN)[:, None].to(bias.dtype) * BLOCKED
        across = (1 - known[:, None, None, :]) * BLOCKED
        states, present = embedded, []
        for number, (norm, own, norm_2, cross, norm_3, dense) in enumerate(self.layers):
            read = norm(states)
            keys, values = (
                torch.cat([past[2 * number + place], own.parted(matrix(read))], 2) for place, matrix in enumerate((own.k, own.v))
            )
            present += [keys, values]
            states = states + own(read, keys, values, bias)
            states = states + cross(norm_2(states), memory[2 * number], memory[2 * number + 1], across)
            states = states + dense(norm_3(states))
        return self.head(self.norm(states) * self.scale), present


def write_graphs(model: T5ForConditionalGeneration, folder: Path) -> None:
    """Trace both graphs and write them, with dynamic numbers of rows and tokens."""
    layers, heads, width = len(model.decoder.block), model.config.num_heads, model.config.d_kv  # type: ignore[arg-type]
    batch, length, nodes, past = 2, 7, 5, 3
    embedded, known = torch.randn(batch, length, model.config.d_model), torch.ones(batch, length)
    memory = [torch.randn(batch, heads, length, width) for _ in range(2 * layers)]
    before = [torch.randn(batch, heads, past, width) for _ in range(2 * layers)]
    read = torch.randn(batch, nodes, model.config.d_model), torch.ones(batch, nodes, past + nodes, dtype=torch.long)
    dims = {name: torch.export.Dim(name, max=2**20) for name in ("batch", "length", "nodes", "past")}
    rows: Any = {0: dims["batch"]}
    over_input: Any = {**rows, 2: dims["length"]}
    columns = torch.export.Dim.DYNAMIC
    names = [f"{kind}.{layer}" for layer in range(layers) for kind in ("keys", "values")]
    _trace(
        EncoderGraph(model), (embedded, known), folder / ENCODER,
        {"embedded": {**rows, 1: dims["length"]}, "known": {**rows, 1: dims["length"]}},
        ["embedded", "known"], [f"memory.{name}" for name in names],
    )  # fmt: skip
    _trace(
        DecoderGraph(model), (*read, known, memory, before), folder / DECODER,
        {
            "embedded": {**rows, 1: dims["nodes"]}, "distances": {**rows, 1: dims["nodes"], 2: columns},
            "known": {**rows, 1: dims["length"]}, "memory": [over_input] * (2 * layers),
            "past": [{**rows, 2: dims["past"]}] * (2 * layers),
        },
        ["embedded", "distances", "known", *(f"memory.{name}" for name in names), *(f"past.{name}" for name in names)],
        ["logits", *(f"present.{name}" for name in names)],
    )  # fmt: skip


def _trace(graph: nn.Module, example: tuple[Any, ...], path: Path, shapes: Any, inputs: list[str], outputs: list[str]) -> None:
    told = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.eval(), example, str(path), dynamo=True, dynamic_shapes=shapes, input_names=inputs, output_names=outputs,
                external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        logging.getLogger("torch.onnx").setLevel(told)
