"""Heads and feed-forward neurons as units: which there are, taking some out of a model, and loading what is left.

A unit is some rows of the linear layers that make it and as many columns of the one that reads it:

    unit                rows of                              columns of       width
    T5: head            q, k, v                              o                d_kv
    T5: neuron          wi_0, wi_1 (or wi)                   wo               1
    BERT: head          query, key, value                    output.dense     hidden / heads
    BERT: neuron        intermediate.dense                   output.dense     1

T5's relative bias has a column for each head, and the table of a stack's first layer serves all of its layers. Where these keep
different heads, the table keeps the columns that any layer needs, and each attention knows its own:

    heads kept   layer 0: 0 2     table: columns 0 1 2     layer 0 reads 0 2
                 layer 1: 1 2                              layer 1 reads 1 2

Such a T5 is no configuration of ``transformers``; ``mengzi_mt.json`` says what is left in its section ``pruned``. One whose
layers are all alike is a plain checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.mt5.modeling_mt5 import MT5Attention
from transformers.models.t5.modeling_t5 import T5Attention

from mengzi_mt.errors import InputError, first_line

MANIFEST = "mengzi_mt.json"
SECTION = "pruned"
Kind = Literal["heads", "neurons"]
_T5_ATTENTION: dict[str, type[nn.Module]] = {"t5": T5Attention, "mt5": MT5Attention}
_BERT = ("bert", "roberta")


@dataclass(frozen=True)
class Units:
    """The heads of one attention, or the neurons of one feed-forward layer.

    Attributes:
        name: path of the module that they belong to, with the model's own names.
        kind: what they are.
        count: how many there are.
        width: rows and columns of each.
        reading: paths of the linear layers that make them.
        writing: path of the linear layer that reads them.
    """

    name: str
    kind: Kind
    count: int
    width: int
    reading: tuple[str, ...]
    writing: str

    def places(self, kept: Sequence[int]) -> Tensor:
        """Rows (and columns) of some units, in their order."""
        return (torch.tensor(list(kept), dtype=torch.long)[:, None] * self.width + torch.arange(self.width)).flatten()


def units_of(model: PreTrainedModel) -> list[Units]:
    """All units of a T5, mT5, BERT or RoBERTa, from the first layer to the last.

    Raises:
        InputError: another model.
    """
    layers = layers_of(model)
    if model.config.model_type in _BERT:
        width = model.config.hidden_size // model.config.num_attention_heads
        return [units for layer in layers["encoder"] for units in _bert_layer(model, layer, width)]
    return [units for stack in layers.values() for block in stack for units in _t5_block(model, block)]


def layers_of(model: PreTrainedModel) -> dict[str, list[str]]:
    """Paths of the layers of each stack, ``encoder`` and, in a T5, ``decoder``.

    Raises:
        InputError: neither a T5, mT5, BERT nor RoBERTa.
    """
    kind = model.config.model_type
    if kind in _BERT:
        stacks = {"encoder": f"{model.base_model_prefix}.encoder.layer"}
    elif kind in _T5_ATTENTION:
        stacks = {stack: f"{stack}.block" for stack in ("encoder", "decoder")}
    else:
        raise InputError(f"A {kind!r} model cannot be pruned", where=model.name_or_path or None, fix="give a T5 or a BERT")
    counts = {stack: len(list(model.get_submodule(path).children())) for stack, path in stacks.items()}
    return {stack: [f"{path}.{number}" for number in range(counts[stack])] for stack, path in stacks.items()}


def _bert_layer(model: nn.Module, layer: str, width: int) -> list[Units]:
    read = [f"{layer}.attention.self.{matrix}" for matrix in ("query", "key", "value")]
    return [
        _units(model, f"{layer}.attention", "heads", width, read, f"{layer}.attention.output.dense"),
        _units(model, f"{layer}.intermediate", "neurons", 1, [f"{layer}.intermediate.dense"], f"{layer}.output.dense"),
    ]


def _t5_block(model: PreTrainedModel, block: str) -> list[Units]:
    attentions = ["layer.0.SelfAttention", *(["layer.1.EncDecAttention"] if block.startswith("decoder") else [])]
    dense = f"{block}.layer.{len(attentions)}.DenseReluDense"
    found = [
        _units(model, name, "heads", model.config.d_kv, [f"{name}.{matrix}" for matrix in "qkv"], f"{name}.o")
        for name in (f"{block}.{attention}" for attention in attentions)
    ]
    inner = ("wi_0", "wi_1") if model.config.is_gated_act else ("wi",)
    return [*found, _units(model, dense, "neurons", 1, [f"{dense}.{matrix}" for matrix in inner], f"{dense}.wo")]


def _units(model: nn.Module, name: str, kind: Kind, width: int, reading: Sequence[str], writing: str) -> Units:
    columns = model.get_parameter(f"{writing}.weight").shape[1]
    return Units(name, kind, columns // width, width, tuple(reading), writing)


class PrunedAttention(T5Attention):
    """T5's attention with any number of heads, which picks their columns of the stack's relative bias.

    Attributes:
        columns: of the table, ``(heads,)``; None where the table's heads are the layer's own, and in attention to the encoder.
    """

    columns: Tensor | None

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As in ``transformers``; the bias that is handed on to the next layer is that of all heads of the table."""
        own = None
        if key_value_states is None:
            if position_bias is None:
                seen = int(past_key_values.get_seq_length(self.layer_idx)) if past_key_values is not None else 0
                length = hidden_states.shape[1]
                position_bias = self.compute_bias(length, seen + length, device=hidden_states.device, past_seen_tokens=seen)
            own = own_heads(self, position_bias, 1)
        out, _, weights = super().forward(hidden_states, mask, key_value_states, own, past_key_values, **others)
        return out, position_bias if key_value_states is None else None, weights


def own_heads(attention: Any, bias: Tensor, dimension: int = 0) -> Tensor:
    """The part of a stack's relative bias that belongs to an attention's own heads.

    Args:
        attention: pruned or not.
        bias: of all heads of the stack's table.
        dimension: that of the heads.
    """
    columns = getattr(attention, "columns", None)
    return bias if columns is None else bias.index_select(dimension, columns)


@torch.no_grad()
def remove_units(model: PreTrainedModel, kept: Mapping[str, Sequence[int]]) -> None:
    """Take units out of a model, in place: its matrices become smaller, and the rest stays as it is.

    The outputs are those of the same model with the columns of the removed units' writing layers set to zero.

    Args:
        model: see :func:`units_of`.
        kept: numbers of the units that stay, by :attr:`Units.name`; of those not named, all stay.

    Raises:
        InputError: no unit of a layer would stay.
    """
    heads: dict[str, list[int]] = {}
    for units in units_of(model):
        chosen = sorted(set(kept.get(units.name, range(units.count))))
        if not chosen:
            raise InputError(f"No {units.kind} would stay", where=units.name, fix="keep at least one; or drop the whole layer")
        if units.kind == "heads":
            heads[units.name] = chosen
        if len(chosen) < units.count:
            places = units.places(chosen)
            for path in units.reading:
                _shrink(model.get_submodule(path), places, 0)
            _shrink(model.get_submodule(units.writing), places, 1)
    if model.config.model_type in _BERT:
        _set_bert_heads(model, heads)
    else:
        _set_t5_heads(model, heads)
    if is_plain(model):
        _describe(model)


def _shrink(linear: Any, places: Tensor, dimension: int) -> None:
    """Keep some rows (0) or columns (1) of a linear layer."""
    linear.weight = nn.Parameter(linear.weight.index_select(dimension, places.to(linear.weight.device)))
    if dimension == 0 and linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[places.to(linear.bias.device)])
    linear.out_features, linear.in_features = linear.weight.shape


def _set_bert_heads(model: nn.Module, heads: Mapping[str, Sequence[int]]) -> None:
    for name, chosen in heads.items():
        attention: Any = model.get_submodule(f"{name}.self")
        attention.num_attention_heads = len(chosen)
        attention.all_head_size = len(chosen) * attention.attention_head_size


def _set_t5_heads(model: PreTrainedModel, heads: Mapping[str, Sequence[int]]) -> None:
    """Tell every attention its heads, and shrink the tables of relative bias to the columns that are read."""
    for stack in ("encoder", "decoder"):
        own = {name: chosen for name, chosen in heads.items() if name.startswith(stack)}
        columns: dict[str, list[int]] = {}
        for name, chosen in own.items():
            attention: Any = model.get_submodule(name)
            if name.endswith("SelfAttention"):
                before = bias_columns(attention)
                columns[name] = [before[head] for head in chosen]
            attention.n_heads = len(chosen)
            attention.inner_dim = len(chosen) * attention.key_value_proj_dim
        read = sorted({column for one in columns.values() for column in one})
        first: Any = model.get_submodule(f"{stack}.block.0.layer.0.SelfAttention")
        table = first.relative_attention_bias
        table.weight = nn.Parameter(table.weight[:, read])
        table.embedding_dim = len(read)
        for name in own:
            places = [read.index(column) for column in columns.get(name, [])]
            _set_columns(model.get_submodule(name), None if places == list(range(len(read))) else places)
    plain = _alike(model)
    for name in heads:
        attention = model.get_submodule(name)
        attention.__class__ = _T5_ATTENTION[model.config.model_type] if plain else PrunedAttention


def _set_columns(attention: nn.Module, places: Sequence[int] | None) -> None:
    device = next(attention.parameters()).device
    attention.register_buffer("columns", torch.tensor(places, device=device) if places else None, persistent=False)


def bias_columns(attention: Any) -> list[int]:
    """The columns of its stack's table that a self-attention reads."""
    columns = getattr(attention, "columns", None)
    return list(range(attention.n_heads)) if columns is None else list(columns.tolist())


def _alike(model: PreTrainedModel) -> bool:
    """Whether all attentions have as many heads, all feed-forward layers as many neurons, and no layer picks columns of a table."""
    units = units_of(model)
    counts = {kind: {one.count for one in units if one.kind == kind} for kind in ("heads", "neurons")}
    own = any(getattr(model.get_submodule(one.name), "columns", None) is not None for one in units)
    return all(len(found) == 1 for found in counts.values()) and not own


def is_plain(model: PreTrainedModel) -> bool:
    """Whether a configuration of ``transformers`` can describe the model.

    BERT's cannot say that there are fewer heads: the width of one is that of the model divided by their number.
    """
    if model.config.model_type not in (*_T5_ATTENTION, *_BERT):
        return True
    if not _alike(model):
        return False
    heads = next(units.count for units in units_of(model) if units.kind == "heads")
    return model.config.model_type not in _BERT or heads == model.config.num_attention_heads


def _describe(model: Any) -> None:
    """Write the sizes of a plain model into its configuration, and those of its stacks."""
    counts = {units.kind: units.count for units in units_of(model)}
    if model.config.model_type in _BERT:
        model.config.intermediate_size = counts["neurons"]
        return
    for config in (model.config, model.encoder.config, model.decoder.config):
        config.num_heads, config.d_ff = counts["heads"], counts["neurons"]


def keep_layers(model: Any, kept: Mapping[str, Sequence[int]]) -> None:
    """Take whole layers out of a model, in place.

    Args:
        model: see :func:`units_of`.
        kept: numbers of the layers that stay: of ``encoder`` and, for a T5, of ``decoder``; of what is not named, all stay.

    Raises:
        InputError: no layer of a stack would stay, or there is none of that number.
    """
    bert = model.config.model_type in _BERT
    for stack, chosen in kept.items():
        layers = f"{model.base_model_prefix}.encoder.layer" if bert else f"{stack}.block"
        before = list(model.get_submodule(layers))
        if not chosen or not set(chosen) <= set(range(len(before))):
            raise InputError(f"Of {len(before)} layers {sorted(chosen)} cannot stay", where=stack, fix="name some that are there")
        after = [before[number] for number in sorted(set(chosen))]
        if not bert:
            _hand_over_bias(before[0], after[0])
        parent, _, name = layers.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.ModuleList(after))
        for number, layer in enumerate(after):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = number  # the place of its keys in a cache
        if bert:
            model.config.num_hidden_layers = len(after)
        else:
            getattr(model, stack).config.num_layers = len(after)
            setattr(model.config, {"encoder": "num_layers", "decoder": "num_decoder_layers"}[stack], len(after))
    remove_units(model, {})  # layers that are gone may have been what made the others unlike


def _hand_over_bias(old: Any, new: Any) -> None:
    """The first layer has the stack's table of relative bias."""
    if old is not new:
        giver, taker = old.layer[0].SelfAttention, new.layer[0].SelfAttention
        taker.has_relative_attention_bias = True
        taker.relative_attention_bias = giver.relative_attention_bias


def pruned_section(model: PreTrainedModel) -> dict[str, Any]:
    """What ``mengzi_mt.json`` has to say of a model that no configuration describes: its section ``pruned``, or nothing."""
    if is_plain(model):
        return {}
    units = units_of(model)
    section: dict[str, Any] = {kind: {one.name: one.count for one in units if one.kind == kind} for kind in ("heads", "neurons")}
    if model.config.model_type in _T5_ATTENTION:
        own = [name for name in section["heads"] if name.endswith("SelfAttention")]
        section["bias_columns"] = {name: bias_columns(model.get_submodule(name)) for name in own}
    return {SECTION: section}


def read_section(folder: str | Path) -> dict[str, Any] | None:
    """The section ``pruned`` of a checkpoint folder; None where there is none, and for a hub name.

    Raises:
        InputError: a manifest that cannot be read.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        section = json.loads(path.read_text(encoding="utf-8")).get(SECTION)
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"The checkpoint's manifest is damaged: {first_line(error)}", where=str(path), fix="use another checkpoint"
        ) from error
    return section if isinstance(section, dict) else None


def shrink_to(model: PreTrainedModel, section: Mapping[str, Any], where: str) -> None:
    """Give a model that was built from the configuration the sizes of a section ``pruned``; its weights are then to be loaded.

    Raises:
        InputError: the section does not belong to this configuration.
    """
    counts = {**section.get("heads", {}), **section.get("neurons", {})}
    columns = section.get("bias_columns", {})
    known = {units.name: units.count for units in units_of(model)}
    wanted: dict[str, list[int]] = {name: columns.get(name, list(range(count))) for name, count in counts.items()}
    if known.keys() != wanted.keys() or any(max(kept, default=0) >= known[name] for name, kept in wanted.items()):
        raise InputError(
            "The section `pruned` does not fit the configuration",
            where=f"{where}/{MANIFEST}",
            fix="use the checkpoint as it was written",
        )
    remove_units(model, wanted)
