"""A T5 run by CTranslate2.

Its converter takes ``tie_word_embeddings`` for the word on whether the decoder's states are scaled before the head; transformers 5
sets that on every T5, and scores of a T5 with a head of its own come out wrong without a warning. Here
:func:`~mengzi_mt.models.t5.output_scale` says it. The vocabulary is the tokenizer's, piece by piece in the order of ids, since
CTranslate2 takes tokens and not ids.

``score_batch`` puts end-of-sequence behind each target and gives its log-probability as the last one. It takes one target a
source and has no way to encode a source once for several: every choice is a row with its input.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.data.constraints import Course
from mengzi_mt.errors import InputError, first_line
from mengzi_mt.models.decoding import Output
from mengzi_mt.models.t5 import output_scale
from mengzi_mt.runtimes.shapes import check_uniform

RUNTIME = "ctranslate2"
BATCH_TOKENS = 8_192
"""Tokens of a forward pass: of all sources, padded, or of all targets."""


def _library() -> Any:
    try:
        import ctranslate2
    except ImportError as error:
        raise InputError("CTranslate2 is not installed", where="ctranslate2", fix="pip install 'mengzi-mt[ctranslate2]'") from error
    return ctranslate2


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
    """The piece of each id, and a name of its own for ids that the model has beyond the tokenizer's.

    Raises:
        InputError: two ids with one piece, or more pieces than the model has ids.
    """
    pieces: list[str] = list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))  # type: ignore[arg-type]
    pieces += [f"<unused_{place}>" for place in range(len(pieces), size)]
    if len(set(pieces)) < len(pieces) or len(pieces) != size:
        raise InputError(
            f"The tokenizer's {len(tokenizer):,} pieces cannot stand for the model's {size:,} ids", where=RUNTIME,
            fix="use the tokenizer that belongs to the checkpoint",
        )  # fmt: skip
    return pieces


def write_ctranslate2(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    """Convert a model; matrices and embedding are stored in ``precision``, the rest in float32 (bfloat16: all of it).

    Raises:
        InputError: the library is missing, or heads that differ by layer.
    """
    _library()
    from ctranslate2.converters.transformers import T5Loader

    check_uniform(model, RUNTIME)

    class Loader(T5Loader):  # type: ignore[misc, unused-ignore]
        def get_model_spec(self, model: Any) -> Any:
            spec = super().get_model_spec(model)
            spec.decoder.scale_outputs = output_scale(model)
            spec.config.layer_norm_epsilon = model.config.layer_norm_epsilon
            return spec

        def get_vocabulary(self, model: Any, tokenizer: Any) -> list[str]:
            return vocabulary_of(tokenizer, model.config.vocab_size)

    with torch.no_grad():
        spec = Loader()(copy.deepcopy(model), tokenizer)  # the converter scales and rounds the weights that it is given
        spec.validate()
        spec.optimize(quantization=None if precision == "float32" else precision)
    (folder / RUNTIME).mkdir(exist_ok=True)
    spec.save(str(folder / RUNTIME))


class CTranslate2Model:
    """Scores and generates token ids.

    Attributes:
        compute_type: in which products are computed: the export's precision, or float32 where the device lacks it.
    """

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, precision: str, device: torch.device | str = "cpu", steps: int = 128
    ) -> None:
        """Load an export folder.

        Args:
            folder: the export.
            tokenizer: the export's.
            precision: the export's.
            device: ``cpu`` or ``cuda``.
            steps: at most so many tokens are generated, end-of-sequence included.

        Raises:
            InputError: the library is missing, files that it cannot read, or another vocabulary than the tokenizer's.
        """
        library, where = _library(), folder / RUNTIME
        place = torch.device(device)
        kinds = library.get_supported_compute_types(place.type, place.index or 0)
        try:
            self.vocabulary: list[str] = json.loads((where / "shared_vocabulary.json").read_text(encoding="utf-8"))
            self.translator: Any = library.Translator(
                str(where), device=place.type, device_index=place.index or 0, intra_threads=torch.get_num_threads(),
                compute_type=precision if precision in kinds else "default",
            )  # fmt: skip
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"CTranslate2 cannot load the export: {first_line(error)}", where=str(where), fix="export the checkpoint again"
            ) from error
        if self.vocabulary != vocabulary_of(tokenizer, len(self.vocabulary)):
            raise InputError("The export has another vocabulary than its tokenizer", where=str(where), fix="export it again")
        self.compute_type = str(self.translator.compute_type)
        self.ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        self.end, self.steps, self.no_repeat_ngram_size = int(tokenizer.eos_token_id or 1), steps, 0

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.vocabulary[number] for number in ids]

    def score(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """log p of each row's target given its source: the sum over exactly the target's ids.

        Args:
            rows: source (with end-of-sequence) and target; end-of-sequence counts where the target ends with it.
        """
        targets = [list(target[:-1]) if target[-1] == self.end else list(target) for _, target in rows]
        found = self.translator.score_batch(
            [self._pieces(source) for source, _ in rows], [self._pieces(target) for target in targets],
            max_batch_size=BATCH_TOKENS, batch_type="tokens", max_input_length=0,
        )  # fmt: skip
        return [sum(one.log_probs[: len(target)]) for one, (_, target) in zip(found, rows, strict=True)]

    def greedy(self, inputs: Sequence[Sequence[int]], courses: Sequence[Course] | None = None) -> list[Output]:
        """The most probable token at each step.

        Args:
            inputs: token ids with end-of-sequence.
            courses: when to stop; they allow every token.

        Raises:
            InputError: a course that does not.
        """
        if courses is None:
            return [outputs[0] for outputs in self.beam_search(inputs, 1)]
        if any(course.allowed is not None for course in courses):
            raise _refused("constraints")
        followed, end = list(courses), self.end

        # Released by a thread of the translator: were it to hold the last reference to that, the thread would wait for itself, and
        # CTranslate2 would abort ("Resource deadlock avoided"). So it knows nothing of ``self``.
        def stops(step: Any) -> bool:
            if step.token_id != end:
                followed[step.batch_id] = followed[step.batch_id].after(step.token_id)
            return followed[step.batch_id].stopped

        outputs = [found[0] for found in self._search(inputs, 1, 1.0, stops)]
        return [
            Output(one.tokens, one.log_probability, one.finished or course.stopped)
            for one, course in zip(outputs, followed, strict=True)
        ]

    def stream(self, inputs: Sequence[int]) -> Iterator[int]:
        """The most probable token at each step, one after the other; end-of-sequence is left out."""
        for step in self.translator.generate_tokens(
            self._pieces(inputs), max_decoding_length=self.steps, max_input_length=0, no_repeat_ngram_size=self.no_repeat_ngram_size
        ):
            if step.token_id != self.end:
                yield step.token_id

    def beam_search(
        self,
        inputs: Sequence[Sequence[int]],
        beams: int,
        length_penalty: float = 1.0,
        courses: Sequence[Course] | None = None,
    ) -> list[list[Output]]:
        """CTranslate2's beam search, each input's finished sequences, the best first.

        Its search ends an input once ``beams`` sequences are finished, which is not transformers' rule
        (:meth:`mengzi_mt.models.decoding.Decoder.beam_search`).

        Raises:
            InputError: constraints or stop strings are asked for.
        """
        if courses is not None:
            raise _refused("constraints, and beams without stop strings")
        return self._search(inputs, beams, length_penalty)

    def _search(
        self, inputs: Sequence[Sequence[int]], beams: int, length_penalty: float, stops: Callable[[Any], bool] | None = None
    ) -> list[list[Output]]:
        """``stops`` is told of every token of a greedy search, and ends that input's where it is true."""
        results = self.translator.translate_batch(
            [self._pieces(ids) for ids in inputs], beam_size=beams, num_hypotheses=beams, length_penalty=length_penalty,
            max_decoding_length=self.steps, max_input_length=0, no_repeat_ngram_size=self.no_repeat_ngram_size,
            return_scores=True, return_end_token=True, callback=stops,
        )  # fmt: skip
        return [
            [self._output(pieces, score, length_penalty) for pieces, score in zip(result.hypotheses, result.scores, strict=True)]
            for result in results
        ]

    def _output(self, pieces: Sequence[str], score: float, length_penalty: float) -> Output:
        tokens = tuple(self.ids[piece] for piece in pieces)
        finished = bool(tokens) and tokens[-1] == self.end
        return Output(tokens, score * max(1, len(tokens)) ** length_penalty, finished)


def _refused(what: str) -> InputError:
    return InputError(
        f"CTranslate2 generates without {what}", where="runtime ctranslate2",
        fix="use the checkpoint, or an export --to torch or --to onnx, which take them",
    )  # fmt: skip
