"""Ranking and generation by the runtimes of exports that are not this package's own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mengzi_mt.evaluation.conventions import Convention, ConventionName, make_convention
from mengzi_mt.evaluation.generation import Generator, Search
from mengzi_mt.evaluation.ranking import Prepared, Ranker
from mengzi_mt.models.t5 import load_config
from mengzi_mt.runtimes.ctranslate2_model import CTranslate2Model
from mengzi_mt.runtimes.export_folder import Export
from mengzi_mt.runtimes.onnx_model import OnnxModel, OnnxSearch

BATCH_TOKENS = 4_096


class RowScorer(Ranker):
    """Scores choices with a runtime that takes pairs of an input and a choice."""

    def __init__(self, model: CTranslate2Model, convention: Convention, *, max_input: int, batch_size: int) -> None:
        super().__init__(convention, start=0, max_input=max_input, batch_size=batch_size, batch_tokens=BATCH_TOKENS)
        self.model = model

    def _log_probabilities(self, batch: Sequence[Prepared]) -> list[list[float]]:
        found = iter(self.model.score([(item.inputs, choice) for item in batch for choice in item.choices.ids]))
        return [[next(found) for _ in item.choices.ids] for item in batch]


class GraphScorer(Ranker):
    """Scores choices as trees with a runtime that takes trees."""

    def __init__(self, model: OnnxModel, convention: Convention, *, max_input: int, batch_size: int) -> None:
        super().__init__(convention, start=model.start, max_input=max_input, batch_size=batch_size, batch_tokens=BATCH_TOKENS)
        self.model = model

    def _log_probabilities(self, batch: Sequence[Prepared]) -> list[list[float]]:
        return self.model.score_trees([(item.inputs, item.tree) for item in batch])


class RuntimeGenerator(Generator):
    """Generates with a runtime; arguments as of :class:`~mengzi_mt.evaluation.generation.Generator`."""

    def _search(self, model: Any, precision: torch.dtype, steps: int) -> Search:
        if isinstance(model, OnnxModel):
            return OnnxSearch(model, end=self.encoder.eos, steps=steps)
        self.takes_constraints = False
        model.steps = steps
        return model  # type: ignore[no-any-return]


def load_runtime(
    folder: Path,
    export: Export,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str,
    convention: ConventionName,
    limits: dict[str, Any],
    max_new_tokens: int,
) -> tuple[Ranker, RuntimeGenerator, Any, str]:
    """Scorer, generator, the runtime's model, and how choices are scored, in words."""
    told = make_convention(convention, "t5", tokenizer)
    scorer: Ranker
    model: Any
    if export.runtime == "onnx":
        model = OnnxModel(folder, device, int(load_config(folder).decoder_start_token_id or 0))
        scorer, way = GraphScorer(model, told, **limits), "trees of choices"
    else:
        model = CTranslate2Model(folder, tokenizer, export.precision, device)
        scorer, way = RowScorer(model, told, **limits), f"a row a choice, products in {model.compute_type}"
    return scorer, RuntimeGenerator(model, tokenizer, **limits, max_new_tokens=max_new_tokens), model, f"{way}, {export.runtime}"
