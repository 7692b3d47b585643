"""Trimming a vocabulary: pieces that no text uses leave the tokenizer, the embedding and the head.

A unigram tokenizer takes the segmentation of the highest sum of scores. So a text whose segmentation has kept pieces alone is cut
as before: all that is gone are segmentations that lost already. A text that used a piece which is gone is cut into smaller ones.
Byte pieces, special tokens, sentinels and added tokens always stay, so that every text can still be written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.compression.pruning_recipe import VocabularySettings
from mengzi_mt.data.token_shards import TokenCorpus
from mengzi_mt.data.tokens import TokenizedExample, encode_plainly
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import is_tied
from mengzi_mt.models.tokenizer import load_tokenizer

SENTENCEPIECE = "spiece.model"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def count_pieces(pieces: int, corpus: TokenCorpus | None, examples: Iterable[TokenizedExample | None]) -> np.ndarray:
    """How often each of ``pieces`` pieces is used, ``(pieces,)`` int64; both sides of the examples count."""
    counts = np.zeros(pieces, dtype=np.int64)
    for number in range(corpus.documents if corpus else 0):
        counts += np.bincount(corpus.document(number), minlength=pieces)  # type: ignore[union-attr]
    for example in examples:
        if example is not None:
            counts += np.bincount([*example.inputs, *example.targets], minlength=pieces)
    return counts


def kept_pieces(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray, settings: VocabularySettings) -> list[int]:
    """Ids that stay, rising.

    Raises:
        InputError: ``size`` is less than what always stays.
    """
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    fixed = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)  # type: ignore[attr-defined]
    always = {
        number for number, name in enumerate(names)
        if number in fixed or _BYTE.fullmatch(name) or (settings.characters and len(name) == 1)
    }  # fmt: skip
    used = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number] >= settings.least]
    others = [number for number in used if number not in always]
    if settings.size is not None:
        if settings.size < len(always):
            raise InputError(
                f"{len(always):,} pieces always stay", where=f"vocabulary.size: {settings.size}",
                fix="raise it, or set vocabulary.characters: false",
            )  # fmt: skip
        others = others[: settings.size - len(always)]
    return sorted(always | set(others))


def trim_tokenizer(source: Path, kept: Sequence[int], folder: Path) -> PreTrainedTokenizerBase:
    """Write the tokenizer of ``source`` with some of its pieces alone, numbered anew in their old order.

    Raises:
        InputError: a tokenizer that is no unigram model, or whose special tokens would go.
    """
    tokenizer: Any = load_tokenizer(source)
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "Unigram":
        raise InputError(f"A {model['type']} tokenizer cannot be trimmed", where=str(source), fix="only unigram tokenizers can")
    new = {old: number for number, old in enumerate(kept)}
    inside = [old for old in kept if old < len(model["vocab"])]
    model["vocab"] = [model["vocab"][old] for old in inside]
    model["unk_id"] = new[model["unk_id"]]
    for added in described["added_tokens"]:
        added["id"] = new[added["id"]]
    for special in ((described["post_processor"] or {}).get("special_tokens") or {}).values():
        special["ids"] = [new[old] for old in special["ids"]]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = {str(new[int(old)]): token for old, token in config["added_tokens_decoder"].items()}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
    if (source / SENTENCEPIECE).is_file():
        (folder / SENTENCEPIECE).write_bytes(_trimmed_sentencepiece((source / SENTENCEPIECE).read_bytes(), kept))
    return load_tokenizer(folder)


def _trimmed_sentencepiece(written: bytes, kept: Sequence[int]) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # protobuf makes the class at run time
    proto.ParseFromString(written)
    pieces = [proto.pieces[old] for old in kept if old < len(proto.pieces)]
    trimmed: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    trimmed.CopyFrom(proto)
    del trimmed.pieces[:]
    trimmed.pieces.extend(pieces)
    trimmed.trainer_spec.vocab_size = len(pieces)
    return bytes(trimmed.SerializeToString())


@torch.no_grad()
def trim_model(model: T5ForConditionalGeneration, kept: Sequence[int]) -> None:
    """Keep the rows of some pieces in embedding and head, in place, and number the configuration's special tokens anew."""
    rows = torch.tensor(list(kept), device=model.shared.weight.device)
    tied = is_tied(model)
    head = model.lm_head.weight
    model.shared.weight = nn.Parameter(model.shared.weight[rows])
    model.shared.num_embeddings = len(rows)
    for stack in (model.encoder, model.decoder):
        stack.embed_tokens = model.shared
    model.lm_head.weight = model.shared.weight if tied else nn.Parameter(head[rows])
    model.lm_head.out_features = len(rows)
    new = {old: number for number, old in enumerate(kept)}
    for config in (model.config, model.encoder.config, model.decoder.config, model.generation_config):
        for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id", "bos_token_id"):
            old = getattr(config, key, None)
            if isinstance(old, int):
                setattr(config, key, new[old])
        if hasattr(config, "vocab_size"):
            config.vocab_size = len(rows)


@dataclass(frozen=True)
class Agreement:
    """How texts are cut before and after.

    Attributes:
        texts: how many were compared.
        same: those that are cut into the same pieces.
        covered: those whose old pieces were all kept; they are among the same.
        growth: tokens after for each token before.
    """

    texts: int
    same: int
    covered: int
    growth: float


def agreement(before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, texts: Iterable[str]) -> Agreement:
    """Compare two tokenizers piece by piece on some texts."""
    known = set(after.get_vocab())
    count = same = covered = old_tokens = new_tokens = 0
    for text in texts:
        old, new = (t.convert_ids_to_tokens(encode_plainly(t, text)) for t in (before, after))
        count, same, covered = count + 1, same + (old == new), covered + known.issuperset(old)
        old_tokens, new_tokens = old_tokens + len(old), new_tokens + len(new)
    return Agreement(count, same, covered, new_tokens / max(1, old_tokens))
