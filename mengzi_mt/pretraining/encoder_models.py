"""Encoders: BERT and RoBERTa of ``transformers``, the roles that a T5's tokenizer lends its tokens, and heads beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mengzi_mt.errors import InputError, first_line
from mengzi_mt.models.pruned import read_section, shrink_to

HEADS_FILE = "objective_heads.safetensors"
POSITIONS = 512
FAMILY = ("bert", "roberta")


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int


ENCODER_SHAPES = {
    "micro": EncoderShape(128, 2, 4, 384),
    "mini": EncoderShape(256, 4, 4, 640),
    "base": EncoderShape(768, 12, 12, 3_072),
    "base-l6": EncoderShape(768, 6, 12, 3_072),
}
"""``base`` is BERT-base (arXiv:1810.04805) and Mengzi-BERT-base, ``base-l6`` Mengzi-BERT-L6-H768; ``micro`` and ``mini`` can start
the encoder of the T5 of the same name."""


def give_roles(tokenizer: PreTrainedTokenizerBase) -> None:
    """See that a tokenizer has a mask, a beginning and a separator, and puts the latter two around texts.

    A tokenizer with a mask is left as it is. One made for T5 lends its sentinels: ``<extra_id_0>`` is the mask,
    ``<extra_id_1>`` stands at the beginning, ``</s>`` between and after segments. No token is added, so encoder and
    T5 have the same vocabulary.

    Raises:
        InputError: it has neither a mask nor two sentinels.
    """
    if tokenizer.mask_token_id is not None and tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        return
    vocabulary = tokenizer.get_vocab()
    begin, mask, end = "<extra_id_1>", "<extra_id_0>", tokenizer.eos_token
    if begin not in vocabulary or mask not in vocabulary or end is None:
        raise InputError(
            "The tokenizer has neither a mask token nor sentinels", where=tokenizer.name_or_path,
            fix="use one that `mengzi-mt tokenizer train` made, or a BERT's",
        )  # fmt: skip
    from tokenizers.processors import TemplateProcessing

    tokenizer.mask_token, tokenizer.cls_token, tokenizer.sep_token = mask, begin, end
    backend: Any = tokenizer
    backend.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]


def build_encoder(
    shape: str, tokenizer: PreTrainedTokenizerBase, architecture: str = "bert", dropout: float = 0.1, seed: int = 0
) -> PreTrainedModel:
    """An encoder with the head of masked language modelling and random weights; the global generator is left as it was."""
    from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

    sizes, pad = ENCODER_SHAPES[shape], tokenizer.pad_token_id
    config_class: Any = {"bert": BertConfig, "roberta": RobertaConfig}[architecture]
    model_class: Any = {"bert": BertForMaskedLM, "roberta": RobertaForMaskedLM}[architecture]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.feed_forward,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # RoBERTa counts positions from the one behind the padding's id
        max_position_embeddings=POSITIONS + (int(pad or 0) + 1 if architecture == "roberta" else 0),
        type_vocab_size=2,
        pad_token_id=pad,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)


def load_encoder(name_or_path: str, tokenizer: PreTrainedTokenizerBase, dropout: float | None = None) -> PreTrainedModel:
    """A checkpoint to go on from, pruned as it was saved.

    Raises:
        InputError: nothing loadable there, another family, or a vocabulary smaller than the tokenizer's.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM

    try:
        config = AutoConfig.from_pretrained(name_or_path)
        if dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        if config.model_type not in FAMILY:
            raise InputError(f"It is a {config.model_type}", where=name_or_path, fix=f"give one of {', '.join(FAMILY)}")
        section = read_section(name_or_path)
        if section is None:
            model: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(name_or_path, config=config)
        else:
            model = AutoModelForMaskedLM.from_config(config)
            shrink_to(model, section, name_or_path)
            _restore(model, Path(name_or_path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"No encoder can be loaded: {first_line(error)}", where=name_or_path, fix="give a folder or a hub name"
        ) from error
    if config.vocab_size < len(tokenizer):
        raise InputError(
            f"The model has {config.vocab_size} tokens, the tokenizer {len(tokenizer)}", where=name_or_path,
            fix="give the tokenizer that the model was trained with, and a corpus built with it",
        )  # fmt: skip
    return model


class ObjectiveHeads(nn.Module):
    """What predicts tags and the segments' order from the encoder's last states, beside the model.

    Args:
        hidden: width of the states.
        labels: number of labels of ``pos`` and ``ner``, where these are trained.
        order: whether the order of segments is predicted; from the first state, as BERT's pooler does.
        seed: of the random weights; the global generator is left as it was.
    """

    def __init__(self, hidden: int, labels: dict[str, int], order: bool, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tags = nn.ModuleDict({name: nn.Linear(hidden, count) for name, count in labels.items()})
            self.pooler = nn.Linear(hidden, hidden) if order else None
            self.order = nn.Linear(hidden, 2) if order else None
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)

    def order_logits(self, first: Tensor) -> Tensor:
        """From the states of the beginnings, (pairs, hidden) to (pairs, 2)."""
        assert self.pooler is not None and self.order is not None
        return self.order(torch.tanh(self.pooler(first)))


def restored_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """The head of masked language modelling, (tokens, hidden) to (tokens, vocabulary)."""
    head: Any = model.cls if model.config.model_type == "bert" else model.lm_head
    return head(states)


def save_encoder(model: PreTrainedModel, heads: ObjectiveHeads, folder: Path) -> None:
    """Write a plain checkpoint of ``transformers``, and the heads beside. A tensor that is two things is written once."""
    from safetensors.torch import save_file

    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(str(folder))
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            weights[name] = tensor.detach().cpu().contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}, folder / HEADS_FILE)


def restore_encoder(model: PreTrainedModel, heads: ObjectiveHeads, folder: Path) -> None:
    """Give both the weights of a checkpoint of the same sizes.

    Raises:
        InputError: weights of another model.
    """
    from safetensors.torch import load_file

    _restore(model, folder)
    heads.load_state_dict(load_file(folder / HEADS_FILE))


def _restore(model: PreTrainedModel, folder: Path) -> None:
    from safetensors.torch import load_file

    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    lost = [key for key in missing if "decoder" not in key and "position_ids" not in key]  # decoder: tied to the embedding
    if lost or unexpected:
        raise InputError(f"The checkpoint's weights do not fit: {(lost or unexpected)[0]}", where=str(folder))
