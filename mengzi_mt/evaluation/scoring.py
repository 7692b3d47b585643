"""Rank classification: each input is encoded once, and all its answer choices are scored in one decoder pass.

The choices of an input lie side by side in one decoder row; each sees itself and the input, none sees another. The
score of a choice is the sum of the log-probabilities of its tokens, end-of-sequence included, given the input with
end-of-sequence: log p(choice </s> | input </s>). It does not depend on how examples are batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.data.batch import IGNORED
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError
from mengzi_mt.models.packed import decode, encode, head

HEAD_ROWS = 2_048
"""Decoder positions that go through the output head at a time: its logits are the largest tensor of scoring."""
CONVENTION = "sum of log p over the choice's tokens and </s>, given the input and </s>"
NORMALISATIONS = ("sum", "token", "character")


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """Log-probabilities of one example's choices, with what normalising them needs."""

    log_probabilities: tuple[float, ...]
    tokens: tuple[int, ...]
    characters: tuple[int, ...]

    def normalised(self, how: str) -> list[float]:
        """Scores under one normalisation: ``sum``, per ``token`` (with </s>), or per ``character``."""
        if how == "sum":
            return list(self.log_probabilities)
        sizes = self.tokens if how == "token" else self.characters
        return [score / max(1, size) for score, size in zip(self.log_probabilities, sizes, strict=True)]

    def best(self, how: str) -> int:
        """Index of the highest score; the first of equals."""
        scores = self.normalised(how)
        return max(range(len(scores)), key=scores.__getitem__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One example as ids: its input, its choices, and its place in the caller's order."""

    place: int
    inputs: list[int]
    choices: tuple[tuple[int, ...], ...]

    @property
    def decoder_length(self) -> int:
        return sum(len(choice) for choice in self.choices)


class ChoiceScorer:
    """Scores choices with one model. Thread count, batch size and order of the examples do not change the scores."""

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_input: int = 512,
        batch_size: int = 32,
        batch_tokens: int = 8_192,
        precision: str = "float32",
    ) -> None:
        self.model = model.eval()
        self.encoder = Encoder(tokenizer)
        self.max_input = max_input
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.precision = precision
        self.device = next(model.parameters()).device
        self.start = model.config.decoder_start_token_id
        self._choice_ids = lru_cache(maxsize=65_536)(self._encode_choice)

    def score(self, examples: Sequence[TextExample], advance: Callable[[int], None] | None = None) -> list[ChoiceScores]:
        """Scores of every example's choices, in the examples' order.

        Args:
            examples: all with choices; their numbers of choices may differ.
            advance: called with the number of examples finished, after each batch.

        Raises:
            InputError: an example without choices, or an empty choice.
        """
        prepared = [self._prepare(place, example) for place, example in enumerate(examples)]
        results: list[ChoiceScores | None] = [None] * len(examples)
        for batch in self._batches(prepared):
            for item, scores in zip(batch, self._score_batch(batch), strict=True):
                choices = examples[item.place].choices or ()
                results[item.place] = ChoiceScores(
                    tuple(scores), tuple(len(ids) for ids in item.choices), tuple(len(choice) for choice in choices)
                )
            if advance:
                advance(len(batch))
        return [result for result in results if result is not None]

    def _prepare(self, place: int, example: TextExample) -> _Prepared:
        if not example.choices:
            raise InputError(
                "An example without choices cannot be ranked",
                where=f"task {example.task}, template {example.template}, row {example.row_id}",
                fix="evaluate this template by generation",
            )
        inputs, _ = self.encoder.inputs(example, self.max_input)
        return _Prepared(
            place, inputs, tuple(self._choice_ids(choice, example.task, example.template) for choice in example.choices)
        )

    def _encode_choice(self, choice: str, task: str, template: str) -> tuple[int, ...]:
        ids = self.encoder(choice)
        if not ids:
            raise InputError("A choice is empty once it is tokenised", where=f"task {task}, template {template}, choice {choice!r}")
        return (*ids, self.encoder.eos)

    def _batches(self, prepared: list[_Prepared]) -> Iterator[list[_Prepared]]:
        """Examples of like length together, within the budgets of examples and of token slots."""
        batch: list[_Prepared] = []
        longest = decoder = 0
        for item in sorted(prepared, key=lambda p: (len(p.inputs), p.decoder_length, p.place)):
            new_longest, new_decoder = max(longest, len(item.inputs)), max(decoder, item.decoder_length)
            slots = (len(batch) + 1) * (new_longest + new_decoder)
            if batch and (len(batch) >= self.batch_size or slots > self.batch_tokens):
                yield batch
                batch, new_longest, new_decoder = [], len(item.inputs), item.decoder_length
            batch.append(item)
            longest, decoder = new_longest, new_decoder
        if batch:
            yield batch

    @torch.inference_mode()
    def _score_batch(self, batch: list[_Prepared]) -> list[list[float]]:
        shape = (len(batch), max(len(item.inputs) for item in batch))
        ids = torch.full(shape, self.encoder.pad)
        segments = torch.zeros(shape, dtype=torch.long)
        shape = (len(batch), max(item.decoder_length for item in batch))
        decoder_ids = torch.full(shape, self.encoder.pad)
        decoder_segments = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        for row, item in enumerate(batch):
            ids[row, : len(item.inputs)] = torch.tensor(item.inputs)
            segments[row, : len(item.inputs)] = 1
            place = 0
            for number, choice in enumerate(item.choices, start=1):
                end = place + len(choice)
                decoder_ids[row, place:end] = torch.tensor([self.start, *choice[:-1]])
                decoder_segments[row, place:end] = number
                labels[row, place:end] = torch.tensor(choice)
                place = end
        ids, segments, decoder_ids, decoder_segments, labels = (
            tensor.to(self.device) for tensor in (ids, segments, decoder_ids, decoder_segments, labels)
        )
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            states = encode(self.model, ids, segments)
            states = decode(
                self.model, states, segments, decoder_ids, decoder_segments, cross_segments=decoder_segments.clamp(max=1)
            )
            counted = labels != IGNORED
            log_p = torch.zeros(labels.shape, dtype=torch.float64)
            log_p[counted.cpu()] = self._log_probabilities(states[counted], labels[counted]).double().cpu()
        return [_sums(log_p[row], item) for row, item in enumerate(batch)]

    def _log_probabilities(self, states: Tensor, targets: Tensor) -> Tensor:
        """log p of each target at its own decoder position; both of length n, result float32 of length n."""
        parts = []
        for at in range(0, len(targets), HEAD_ROWS):
            logits = head(self.model, states[at : at + HEAD_ROWS]).float()
            chosen = logits.gather(1, targets[at : at + HEAD_ROWS, None])[:, 0]
            parts.append(chosen - logits.logsumexp(dim=1))
        return torch.cat(parts)


def _sums(log_p: Tensor, item: _Prepared) -> list[float]:
    """Per choice, the sum over its own tokens."""
    lengths = [len(choice) for choice in item.choices]
    return [float(part.sum()) for part in log_p[: sum(lengths)].split(lengths)]
