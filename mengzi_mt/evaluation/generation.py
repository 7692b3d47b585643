"""Generation of open answers, greedy or by beam search, batched over inputs of like length; results do not depend on the batch.

See docs/evaluation.md for the conventions.
"""

from __future__ import annotations

import codecs
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.data.constraints import Answers, Constraint, Course, StopAt
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.flat import SLACK
from mengzi_mt.data.pieces import Pieces
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.scoring import PRECISIONS
from mengzi_mt.models.decoding import Decoder, Output


@dataclass(frozen=True)
class Generated:
    """The answer to one example.

    Attributes:
        text: without blanks at its ends, cut before a stop string.
        log_probability: sum over the generated tokens, end-of-sequence (or what completed the stop string) included. Under a
            constraint it is the unconstrained model's. None where it was not computed.
        tokens: how many were generated, likewise.
        finished: False where ``max_new_tokens`` cut the answer.
        seconds: the row's share of its batch's time, by tokens.
        cut: characters of the input that were cut to fit.
        candidates: text and log-probability of every sequence that the beam search finished, the answer first.
    """

    text: str
    log_probability: float | None = None
    tokens: int = 0
    finished: bool = True
    seconds: float = field(default=0.0, compare=False)
    cut: int = 0
    candidates: tuple[tuple[str, float], ...] = ()


class Search(Protocol):
    """What finds the tokens of answers: :class:`~mengzi_mt.models.decoding.Decoder` says what each method does."""

    steps: int
    """Generated tokens at most, end-of-sequence included."""
    no_repeat_ngram_size: int
    """No so many tokens in a row stand twice in an answer; 0 lets them."""

    def stream(self, inputs: Sequence[int]) -> Iterator[int]:
        """The tokens of the greedy sequence, as soon as they are known."""

    def greedy(self, inputs: Sequence[Sequence[int]], courses: Sequence[Course] | None = None) -> list[Output]:
        """One sequence an input."""

    def beam_search(
        self, inputs: Sequence[Sequence[int]], beams: int, length_penalty: float = 1.0, courses: Sequence[Course] | None = None
    ) -> list[list[Output]]:
        """An input's finished sequences, the best first."""


class _Prepared(NamedTuple):
    """One example as ids: its place in the caller's order, its input, the characters cut."""

    place: int
    inputs: list[int]
    cut: int


class Generator:
    """Generates with one model. Batch size and order of the examples do not change the answers.

    Attributes:
        takes_constraints: whether :meth:`generate` knows what answers may be.
    """

    takes_constraints = True

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_input: int = 512,
        max_new_tokens: int = 128,
        batch_size: int = 64,
        batch_tokens: int = 16_384,
        precision: str = "float32",
        beams: int = 1,
        length_penalty: float = 1.0,
        stop: Sequence[str] = (),
    ) -> None:
        """Take the model as it is now.

        Args:
            model: on the device to use; its weights must not change afterwards.
            tokenizer: the model's.
            max_input: input tokens, end-of-sequence included; shrinkable text is cut to fit.
            max_new_tokens: generated tokens at most, end-of-sequence included.
            batch_size: sequences generated at once at most, each beam counted (always at least one example).
            batch_tokens: input tokens of a batch at most (always at least one example).
            precision: one of :data:`~mengzi_mt.evaluation.scoring.PRECISIONS`.
            beams: 1 for greedy decoding.
            length_penalty: a finished beam's score is its log-probability by this power of its tokens.
            stop: strings that end an answer; they are no part of it.

        Raises:
            InputError: a number below its least, or an empty stop string.
        """
        _at_least_one(max_new_tokens=max_new_tokens, beams=beams, batch_size=batch_size)
        if not math.isfinite(length_penalty):
            raise InputError(f"length_penalty is {length_penalty}", where="generation", fix="give a finite number")
        self.encoder = Encoder(tokenizer)
        self.decoder = self._search(model, PRECISIONS[precision], max_new_tokens)
        self.max_input, self.batch_size, self.batch_tokens = max_input, batch_size, batch_tokens
        self.beams, self.length_penalty = beams, length_penalty
        self.stop = self._stops(stop)

    def _stops(self, stop: Sequence[str]) -> tuple[str, ...]:
        if not all(self.pieces.normalise(text) for text in stop):
            raise InputError("A stop string is empty", where="generation", fix="leave it out")
        return tuple(stop)

    def adjusted(
        self, *, max_new_tokens: int | None = None, beams: int = 1, stop: Sequence[str] = (), no_repeat_ngram_size: int = 0
    ) -> Generator:
        """A generator of the same model with other settings; weights are shared.

        Raises:
            InputError: a number below its least, or an empty stop string.
        """
        steps = self.decoder.steps if max_new_tokens is None else max_new_tokens
        _at_least_one(max_new_tokens=steps, beams=beams)
        check_no_repeat(no_repeat_ngram_size)
        other = copy.copy(self)
        other.decoder = copy.copy(self.decoder)
        other.decoder.steps, other.beams, other.stop = steps, beams, self._stops(stop)
        other.decoder.no_repeat_ngram_size = no_repeat_ngram_size
        return other

    def stream(self, example: TextExample) -> Iterator[str]:
        """The greedy answer to one example in pieces, as soon as they are known. Together they are :meth:`generate`'s text.

        No piece ends inside of a character that is spelled in bytes, and none holds the beginning of a stop string.
        """
        inputs, _ = self.encoder.inputs(example, self.max_input)
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        stops = tuple(form for stop in self.stop for form in (stop, self.pieces.normalise(stop)))
        held, begun = "", False  # what may turn out to be the last blanks, or a stop string's beginning, is kept back
        for token in self.decoder.stream(inputs):
            held += characters.decode(self.pieces.of(token))
            places = [place for stop in stops if (place := held.find(stop)) >= 0]
            known = held[: min(places)] if places else held[: len(held) - _begun_stop(held, stops)]
            piece = known.rstrip() if begun else known.strip()
            if piece:
                held, begun = held[len(known.rstrip()) :], True
                yield piece
            if places:
                return
        rest = held + characters.decode(b"", final=True)
        if rest := (rest.rstrip() if begun else rest.strip()):
            yield rest

    def _search(self, model: Any, precision: torch.dtype, steps: int) -> Search:
        slack = 1.25 if model.device.type == "cpu" else SLACK
        return Decoder(model.eval(), precision, end=self.encoder.eos, steps=steps, slack=slack)

    @cached_property
    def pieces(self) -> Pieces:
        """What the tokenizer's pieces write."""
        return Pieces(self.encoder)

    def generate(
        self,
        examples: Sequence[TextExample],
        advance: Callable[[int], None] | None = None,
        constraint: Constraint | None = None,
    ) -> list[Generated]:
        """The answer to every example, in the examples' order.

        Args:
            examples: their inputs are cut to ``max_input`` where shrinkable text allows.
            advance: called with the number of examples finished, after each batch.
            constraint: what answers may be.

        Raises:
            InputError: the constraint allows no answer to an example.
        """
        prepared = [_Prepared(place, *self.encoder.inputs(example, self.max_input)) for place, example in enumerate(examples)]
        results: list[Generated | None] = [None] * len(examples)
        for batch in self._batches(prepared):
            began = time.perf_counter()
            answers = None if constraint is None else [constraint.answers(examples[item.place], self.pieces) for item in batch]
            outputs = self._outputs([item.inputs for item in batch], answers)
            seconds = time.perf_counter() - began
            sizes = [len(item.inputs) + len(found[0].tokens) for item, found in zip(batch, outputs, strict=True)]
            for number, (item, found) in enumerate(zip(batch, outputs, strict=True)):
                texts = [self._text(one, answers[number] if answers else None) for one in found]
                results[item.place] = Generated(
                    texts[0], found[0].log_probability, len(found[0].tokens), found[0].finished,
                    seconds * sizes[number] / sum(sizes), item.cut,
                    tuple((text, one.log_probability) for text, one in zip(texts, found, strict=True)),
                )  # fmt: skip
            if advance:
                advance(len(batch))
        return [result for result in results if result is not None]

    def _outputs(self, inputs: Sequence[Sequence[int]], answers: Sequence[Answers] | None) -> list[list[Output]]:
        courses: list[Course] | None = None if answers is None else [one.start for one in answers]
        if self.stop:
            stops = tuple(self.pieces.normalise(text).encode() for text in self.stop)
            courses = [StopAt(self.pieces, stops, courses[number] if courses else None) for number in range(len(inputs))]
        if self.beams == 1:
            return [[output] for output in self.decoder.greedy(inputs, courses)]
        return self.decoder.beam_search(inputs, self.beams, self.length_penalty, courses)

    def _text(self, output: Output, answers: Answers | None) -> str:
        tokens = [token for token in output.tokens if token != self.encoder.eos]
        text = answers.text(tokens) if answers else str(self.encoder.tokenizer.decode(tokens, skip_special_tokens=True))
        for stop in self.stop:
            text = text.partition(stop)[0].partition(self.pieces.normalise(stop))[0]
        return text.strip()

    def _batches(self, prepared: list[_Prepared]) -> Iterator[list[_Prepared]]:
        """Examples of like length together, within the budgets of sequences and of tokens."""
        batch: list[_Prepared] = []
        held = 0
        for item in sorted(prepared, key=lambda one: (len(one.inputs), one.place)):
            if batch and ((len(batch) + 1) * self.beams > self.batch_size or held + len(item.inputs) > self.batch_tokens):
                yield batch
                batch, held = [], 0
            batch.append(item)
            held += len(item.inputs)
        if batch:
            yield batch


def _begun_stop(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of a text that begin a stop string."""
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)


def check_no_repeat(size: int) -> None:
    """See that the size of n-grams that may not repeat is one, or 0 for none.

    Raises:
        InputError: it is below 0.
    """
    if size < 0:
        raise InputError(
            f"no_repeat_ngram_size is {size}", where="generation", fix="give 0 to let texts repeat, or a number of tokens"
        )


def _at_least_one(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name} is {value}", where="generation", fix="give at least 1")
