"""Any language model of transformers, made ready to rank choices and to answer freely, by its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import Module
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from mengzi_mt.errors import InputError, first_line
from mengzi_mt.evaluation.causal_scoring import CausalScorer
from mengzi_mt.evaluation.conventions import ConventionName, Kind
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.evaluation.plain_generation import PlainGenerator
from mengzi_mt.evaluation.ranking import Ranker
from mengzi_mt.evaluation.scoring import PRECISIONS, ChoiceScorer
from mengzi_mt.evaluation.seq2seq_scoring import Seq2SeqScorer
from mengzi_mt.models.t5 import SCORED_FAMILY, T5_FAMILY, load_model, parameter_count
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.runtimes.export_folder import is_export, read_export
from mengzi_mt.runtimes.torch_int8 import load_int8

TREES = "trees of choices"


class Scorers(NamedTuple):
    """What evaluates one model.

    Attributes:
        scorer: ranks choices; its ``convention.description`` belongs into results.
        generator: answers templates without choices.
        model: the model itself.
        kind: of architecture.
        way: how choices are scored, in words: as trees, or a row for each.
        parameters: how many the model has.
        precision: of its products.
        exact: the same scorer in float32, where ``scorer`` rounds; None where weights were rounded when they were loaded.
    """

    scorer: Ranker
    generator: Any
    model: Any
    kind: Kind
    way: str
    parameters: int
    precision: str
    exact: Ranker | None = None


def load_scorers(
    place: str,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    max_input: int = 512,
    batch_size: int = 64,
    convention: ConventionName = "mengzi",
) -> Scorers:
    """Scorer and generator of the model in a local folder, an export folder's too, or of a hub name.

    T5, mT5 and umT5 are scored as trees with the encoder's states of each input; other encoder-decoders with a decoder row for each
    choice; decoder-only models as trees behind a key-value cache. In ``bfloat16`` a T5's matrices are rounded, of other models all
    weights are.

    Args:
        place: where the checkpoint is, or its hub name.
        device: to use.
        precision: one of :data:`~mengzi_mt.evaluation.scoring.PRECISIONS`.
        max_input: input tokens; shrinkable text is cut to fit.
        batch_size: examples of a forward pass at most.
        convention: one of :data:`~mengzi_mt.evaluation.conventions.CONVENTIONS`.

    Raises:
        InputError: nothing loadable there, or an architecture that is no language model.
    """
    limits: dict[str, Any] = {"max_input": max_input, "batch_size": batch_size}
    if is_export(place):
        if precision != "float32":
            raise InputError("An export has a precision of its own", where=f"precision {precision}", fix="leave it out")
        return load_exported(Path(place), load_tokenizer(place), device=device, convention=convention, **limits)
    config = read_config(place)
    kind = kind_of(config, place)
    tokenizer = load_tokenizer(place)
    if kind == "t5":
        t5 = load_model(place, family=SCORED_FAMILY)
        Module.to(t5, device)
        scorer = ChoiceScorer(t5, tokenizer, **limits, precision=precision, convention=convention)
        exact = None if precision == "float32" else ChoiceScorer(t5, tokenizer, **limits, convention=convention)
        own = config.model_type in T5_FAMILY
        generator = Generator(t5, tokenizer, **limits, precision=precision) if own else PlainGenerator(t5, tokenizer, **limits)
        return Scorers(scorer, generator, t5, kind, TREES, parameter_count(t5), precision, exact)
    model = _load(place, config, kind, PRECISIONS[precision])
    Module.to(model, device)
    generator, told = PlainGenerator(model, tokenizer, **limits), (parameter_count(model), precision)
    if kind == "encoder-decoder":
        by_row = Seq2SeqScorer(model, tokenizer, **limits, convention=convention)
        return Scorers(by_row, generator, model, kind, "a row a choice", *told)
    causal = CausalScorer(model, tokenizer, **limits, convention=convention)
    way = "trees of choices behind a key-value cache" if causal.shares_prompts else "a row a choice"
    return Scorers(causal, generator, model, kind, way, *told)


def load_exported(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device | str = "cpu",
    convention: ConventionName = "mengzi",
    max_input: int = 512,
    batch_size: int = 64,
    max_new_tokens: int = 128,
) -> Scorers:
    """Scorer and generator of an export folder, run where it says; arguments as of :func:`load_scorers`.

    Raises:
        InputError: a damaged folder, or one that this version or this device cannot run.
    """
    export = read_export(folder)
    limits: dict[str, Any] = {"max_input": max_input, "batch_size": batch_size}
    told = (export.parameters, export.precision)
    if export.runtime != "torch-int8":
        from mengzi_mt.evaluation.exported import load_runtime

        ranker, other, model, way = load_runtime(folder, export, tokenizer, device, convention, limits, max_new_tokens)
        return Scorers(ranker, other, model, "t5", way, *told)
    t5 = load_int8(folder, device)
    scorer = ChoiceScorer(t5, tokenizer, **limits, convention=convention)
    generator = Generator(t5, tokenizer, **limits, max_new_tokens=max_new_tokens)
    return Scorers(scorer, generator, t5, "t5", f"{TREES}, {export.runtime}", *told)


def read_config(place: str) -> Any:
    """The configuration of a local folder or of a hub name.

    Raises:
        InputError: nothing readable there.
    """
    if not Path(place).exists() and (place.startswith((".", "/", "~")) or place.count("/") != 1):
        raise InputError(
            "No model can be loaded: the folder does not exist", where=place, fix="check the path, or give a hub name (owner/name)"
        )
    try:
        return AutoConfig.from_pretrained(place)
    except Exception as error:  # the library raises OSError, ValueError and JSON errors for one cause
        raise InputError(
            f"No model can be loaded: {first_line(error)}", where=place, fix="give a checkpoint folder or a hub name"
        ) from error


def kind_of(config: Any, place: str) -> Kind:
    """The kind of architecture.

    Raises:
        InputError: neither an encoder-decoder nor a decoder-only language model.
    """
    if config.model_type in SCORED_FAMILY:
        return "t5"
    if config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and config.is_encoder_decoder:
        return "encoder-decoder"
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not config.is_encoder_decoder and not _only_encodes(config):
        return "decoder-only"
    raise InputError(
        f"A {config.model_type!r} model is no language model that can be evaluated here",
        where=place,
        fix="give an encoder-decoder or a decoder-only model of transformers",
    )


def _only_encodes(config: Any) -> bool:
    """BERT and its kin stand among the causal models, for those that were trained as decoders."""
    return hasattr(config, "is_decoder") and not config.is_decoder and any("MaskedLM" in one for one in config.architectures or ())


def _load(place: str, config: Any, kind: Kind, dtype: torch.dtype) -> Any:
    loader: Any = AutoModelForSeq2SeqLM if kind == "encoder-decoder" else AutoModelForCausalLM
    logging.disable_progress_bar()
    try:
        model, report = loader.from_pretrained(place, config=config, dtype=dtype, output_loading_info=True)
    except Exception as error:
        raise InputError(
            f"The weights cannot be loaded: {type(error).__name__}: {first_line(error)}", where=place,
            fix="the checkpoint is incomplete or damaged; use another one or download it again",
        ) from error  # fmt: skip
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"The checkpoint lacks {len(missing)} weights, {missing[0]} among them", where=place, fix="use a complete one"
        )
    return model
