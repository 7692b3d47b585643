"""Greedy decoding and beam search with a T5: finished sequences leave the batch, and no result depends on who shares it.

Outputs are those of transformers' ``generate`` for one input at a time (tests compare both, and constraints with its
``prefix_allowed_tokens_fn``). Log-probabilities are the model's own: what may not follow is left out of the choice, and
nothing is divided by what remains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from mengzi_mt.data.constraints import Course
from mengzi_mt.models.caches import Decoding
from mengzi_mt.models.head import NEVER, Head
from mengzi_mt.models.inference import Inference

LEAVE = 1 / 8
"""Share of finished sequences at which they are taken out of the batch: it costs a copy of what the others remember."""
LOOK = 8
"""Steps between two looks at what is finished, on an accelerator: a look waits for it."""
UNFILLED = -1e9
"""Score of a place for a finished beam that none has taken."""
NOTHING = -1
"""Where no token was written."""


@dataclass(frozen=True)
class Output:
    """One generated sequence.

    Attributes:
        tokens: end-of-sequence included where it was generated.
        log_probability: sum over the tokens.
        finished: False where the limit of tokens cut it.
    """

    tokens: tuple[int, ...]
    log_probability: float
    finished: bool


class Steps(Protocol):
    """Sequences of one batch on their way; :class:`~mengzi_mt.models.caches.Decoding` says what each method does."""

    def step(self, tokens: Tensor) -> Tensor:
        """What the head takes after one more token a row, ``(rows, …)``."""

    def keep(self, examples: Tensor) -> None:
        """Go on with these inputs alone."""

    def follow(self, rows: Tensor) -> None:
        """Every row goes on from the history of another one."""


class TokenSearch(ABC):
    """Greedy decoding and beam search over whatever makes a step at a time.

    Attributes:
        steps: at most so many tokens are generated, end-of-sequence included.
        no_repeat_ngram_size: no so many tokens in a row stand twice in a sequence, as in transformers' ``generate``; 0 lets them.
            A sequence with constraints is left alone: it may have to repeat a text.
    """

    def __init__(self, head: Head, device: torch.device, *, start: int, end: int, steps: int) -> None:
        """Args:
        head: what finds the most probable tokens after a step.
        device: where tokens are.
        start: the decoder's start token.
        end: the end-of-sequence token.
        steps: at most so many tokens are generated, end-of-sequence included.
        """
        self.head, self.device = head, device
        self.start, self.end, self.steps = start, end, steps
        self.no_repeat_ngram_size = 0
        self.look = 1 if device.type == "cpu" else LOOK

    @abstractmethod
    def begin(self, inputs: Sequence[Sequence[int]], beams: int) -> Steps:
        """``beams`` sequences of each input, before their first token."""

    @torch.inference_mode()
    def greedy(self, inputs: Sequence[Sequence[int]], courses: Sequence[Course] | None = None) -> list[Output]:
        """The most probable token at each step.

        Args:
            inputs: token ids with end-of-sequence, neighbours of like length; at least one.
            courses: what each sequence may be; all of them with constraints or none.
        """
        device, decoding = self.device, self.begin(inputs, 1)
        rows = torch.arange(len(inputs), device=device)
        tokens = torch.full((len(inputs),), self.start, device=device)
        going = torch.ones(len(inputs), dtype=torch.bool, device=device)
        finished = going.clone()
        written = torch.full((len(inputs), self.steps), NOTHING, device=device)
        log_p = torch.zeros((len(inputs), self.steps), device=device)
        followed = None if courses is None else list(courses)
        for step in range(self.steps):
            best, found = self._top(decoding.step(tokens), 1, _allowed(followed), written[rows, :step])
            tokens = best[:, 0]
            written[rows, step] = tokens.where(going, NOTHING)
            log_p[rows, step] = found[:, 0].where(going, 0.0)
            going = going & (tokens != self.end)
            if followed is not None:
                followed = _after(followed, tokens.tolist(), going.tolist())
                going = going & ~torch.tensor([course.stopped for course in followed], device=device)
            if followed is None and (step + 1) % self.look:
                continue
            kept = going.nonzero()[:, 0]
            if not len(kept) or step + 1 == self.steps:
                break
            if len(kept) <= (1 - LEAVE) * len(going):
                decoding.keep(kept)
                rows, tokens, going = rows[kept], tokens[kept], going[kept]
                followed = followed and [followed[place] for place in kept.tolist()]
        finished[rows] = ~going
        sums = log_p.double().sum(1).tolist()
        return [
            Output(tuple(token for token in one if token != NOTHING), total, done)
            for one, total, done in zip(written.tolist(), sums, finished.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def stream(self, inputs: Sequence[int]) -> Iterator[int]:
        """The most probable token at each step, one after the other; end-of-sequence is left out."""
        decoding = self.begin([inputs], 1)
        tokens = torch.full((1,), self.start, device=self.device)
        written = torch.empty((1, 0), dtype=torch.long, device=self.device)
        for _ in range(self.steps):
            tokens = self._top(decoding.step(tokens), 1, None, written)[0][:, 0]
            token = int(tokens)
            if token == self.end:
                return
            written = torch.cat([written, tokens[:, None]], 1)
            yield token

    @torch.inference_mode()
    def beam_search(
        self,
        inputs: Sequence[Sequence[int]],
        beams: int,
        length_penalty: float = 1.0,
        courses: Sequence[Course] | None = None,
    ) -> list[list[Output]]:
        """Beam search as in transformers with its default ``early_stopping=False``.

        The score of a sequence is its log-probability divided by the ``length_penalty``-th power of its number of tokens. An
        input's search ends when the best running beam, at its present length, scores no higher than the worst of ``beams``
        finished ones.

        Args:
            inputs: token ids with end-of-sequence, neighbours of like length; at least one.
            beams: number of sequences followed, at least 2.
            length_penalty: exponent of the length.
            courses: what each sequence may be; all of them with constraints or none.

        Returns:
            For each input its finished sequences, the best first: at least one, at most ``beams``.
        """
        device, decoding = self.device, self.begin(inputs, beams)
        search = _Search(len(inputs), beams, self.steps, device)
        results: list[list[Output]] = [[] for _ in inputs]
        places = list(range(len(inputs)))
        followed = None if courses is None else [course for course in courses for _ in range(beams)]
        tokens = torch.full((len(inputs) * beams,), self.start, device=device)
        for step in range(self.steps):
            last = step + 1 == self.steps
            number = min(2 * beams, self.head.vocabulary)
            best, found = self._top(decoding.step(tokens), number, _allowed(followed), search.tokens[:, :, :step].flatten(0, 1))
            parents, tokens, scores = search.candidates(best, found)
            over = tokens == self.end
            if followed is not None:
                tried = _tried(followed, parents.tolist(), tokens.tolist(), (over | (scores == NEVER)).tolist())
                over |= torch.tensor([[course.stopped for course in one] for one in tried], device=device)
            search.finish(parents, tokens, scores, over, last, length_penalty)
            if last:
                break
            chosen = search.go_on(parents, tokens, scores, over, length_penalty)
            tokens = tokens.gather(1, chosen)
            if followed is not None:
                followed = [one[place] for one, picked in zip(tried, chosen.tolist(), strict=True) for place in picked]
            decoding.follow((torch.arange(len(places), device=device)[:, None] * beams + parents.gather(1, chosen)).flatten())
            if (step + 1) % self.look:
                tokens = tokens.flatten()
                continue
            kept = search.open.nonzero()[:, 0]
            if not len(kept):
                break
            if len(kept) <= (1 - LEAVE) * len(places):
                for place, outputs in zip(places, search.outputs(), strict=True):
                    results[place] = outputs
                decoding.keep(kept)
                search.keep(kept)
                tokens, inside = tokens[kept], kept.tolist()
                places = [places[one] for one in inside]
                followed = followed and [followed[one * beams + beam] for one in inside for beam in range(beams)]
            tokens = tokens.flatten()
        for place, outputs in zip(places, search.outputs(), strict=True):
            results[place] = outputs
        return results

    def _top(self, states: Tensor, number: int, allowed: list[Sequence[int]] | None, written: Tensor) -> tuple[Tensor, Tensor]:
        """The head's best tokens of each row, those left out that would repeat an n-gram.

        Args:
            states: what the head takes.
            number: of tokens.
            allowed: tokens of each row that may come; None for all.
            written: tokens of each row so far, ``(rows, steps)``.
        """
        size = self.no_repeat_ngram_size
        if not size or allowed is not None or written.shape[1] + 1 < size:
            return self.head.top(states, number, allowed)
        barred = repeating(functional.pad(written, (1, 0), value=self.start), size)
        spare = min(number + max(len(one) for one in barred), self.head.vocabulary)
        best, found = self.head.top(states, spare)
        bars = [[token in one for token in row] for row, one in zip(best.tolist(), barred, strict=True)]
        found, places = found.masked_fill(torch.tensor(bars, device=found.device), NEVER).topk(number, dim=1)
        return best.gather(1, places), found


def repeating(written: Tensor, size: int) -> list[set[int]]:
    """Tokens that would end an n-gram of ``size`` tokens which the row holds already.

    Args:
        written: tokens of each row, ``(rows, steps)``, at least ``size`` steps.
        size: of the n-gram.
    """
    if size == 1:
        return [set(row) for row in written.tolist()]
    windows = written.unfold(1, size, 1)  # (rows, n-grams, size)
    last = written[:, None, 1 - size :]
    rows, places = (windows[:, :, :-1] == last).all(2).nonzero(as_tuple=True)
    found: list[set[int]] = [set() for _ in range(len(written))]
    for row, token in zip(rows.tolist(), windows[rows, places, -1].tolist(), strict=True):
        found[row].add(token)
    return found


class Decoder(TokenSearch):
    """A T5 made ready to generate. Its weights must not change afterwards, and adapters must be merged."""

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        precision: torch.dtype = torch.float32,
        *,
        end: int,
        steps: int,
        slack: float = 1.15,
    ) -> None:
        """Take the model as it is now.

        Args:
            model: on the device to use.
            precision: of products.
            end: the end-of-sequence token.
            steps: at most so many tokens are generated, end-of-sequence included.
            slack: how much longer the longest input of a block of attention may be than its shortest.
        """
        self.inference, self.slack = Inference(model, precision), slack
        start = int(model.config.decoder_start_token_id or 0)
        super().__init__(Head(self.inference), self.inference.device, start=start, end=end, steps=steps)

    def begin(self, inputs: Sequence[Sequence[int]], beams: int) -> Decoding:
        """The inputs encoded."""
        return Decoding(self.inference, inputs, self.slack, beams, self.steps)


class _Search:
    """Running and finished beams of every input: tensors ``(inputs, beams)`` and ``(inputs, beams, steps)``."""

    def __init__(self, inputs: int, beams: int, steps: int, device: torch.device) -> None:
        self.step = 0
        self.scores = torch.full((inputs, beams), NEVER, dtype=torch.float64, device=device)
        self.scores[:, 0] = 0  # all beams begin alike: one of them is enough
        self.tokens = torch.full((inputs, beams, steps), NOTHING, device=device)
        self.open = torch.ones(inputs, dtype=torch.bool, device=device)
        self.done_scores = torch.full_like(self.scores, UNFILLED)
        self.done_log_p = torch.zeros_like(self.scores)
        self.done_tokens = self.tokens.clone()
        self.done = torch.zeros((inputs, beams), dtype=torch.bool, device=device)
        self.complete = self.done.clone()

    def candidates(self, best: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of each input's beams: the beam, the token and the log-probability, ``(inputs, candidates)``."""
        inputs, beams = self.scores.shape
        number = best.shape[1]
        scores = (found.double().view(inputs, beams, number) + self.scores[:, :, None]).flatten(1)
        scores, places = scores.topk(number, dim=1)
        return places // number, best.view(inputs, -1).gather(1, places), scores

    def finish(self, parents: Tensor, tokens: Tensor, scores: Tensor, over: Tensor, last: bool, length_penalty: float) -> None:
        """Put candidates that are over (all of them, at the last step) among the finished, if they are among the first."""
        beams = self.scores.shape[1]
        now = (torch.ones_like(over) if last else over)[:, :beams] & self.open[:, None] & (scores[:, :beams] > NEVER)
        scored = (scores[:, :beams] / (self.step + 1) ** length_penalty).masked_fill(~now, NEVER)
        merged, places = torch.cat([self.done_scores, scored], 1).topk(beams, dim=1)
        written = self._continued(parents[:, :beams], tokens[:, :beams])
        self.done_scores = merged
        self.done_log_p = torch.cat([self.done_log_p, scores[:, :beams]], 1).gather(1, places)
        self.done_tokens = _pick(torch.cat([self.done_tokens, written], 1), places)
        self.done = torch.cat([self.done, now], 1).gather(1, places)
        self.complete = torch.cat([self.complete, over[:, :beams]], 1).gather(1, places)

    def go_on(self, parents: Tensor, tokens: Tensor, scores: Tensor, over: Tensor, length_penalty: float) -> Tensor:
        """Take the best candidates that are not over as the running beams; which ones, ``(inputs, beams)``."""
        self.scores, chosen = scores.masked_fill(over, NEVER).topk(self.scores.shape[1], dim=1)
        self.tokens = self._continued(parents.gather(1, chosen), tokens.gather(1, chosen))
        self.step += 1
        worst = self.done_scores.amin(1).where(self.done.any(1), UNFILLED)
        self.open = self.open & (self.scores[:, 0] / self.step**length_penalty > worst)
        return chosen

    def _continued(self, parents: Tensor, tokens: Tensor) -> Tensor:
        written = _pick(self.tokens, parents)
        written[:, :, self.step] = tokens
        return written

    def keep(self, inputs: Tensor) -> None:
        """Go on with these inputs alone."""
        for name in ("scores", "tokens", "open", "done_scores", "done_log_p", "done_tokens", "done", "complete"):
            setattr(self, name, getattr(self, name)[inputs])

    def outputs(self) -> list[list[Output]]:
        """The finished sequences of every input, the best first."""
        lists = (part.tolist() for part in (self.done_tokens, self.done_log_p, self.done, self.complete))
        return [
            [
                Output(tuple(token for token in tokens if token != NOTHING), log_p, complete)
                for tokens, log_p, done, complete in zip(*one, strict=True)
                if done
            ]
            for one in zip(*lists, strict=True)
        ]


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """``(inputs, beams, steps)`` at the places ``(inputs, chosen)`` of the second dimension."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


def _allowed(courses: Sequence[Course] | None) -> list[Sequence[int]] | None:
    if courses is None:
        return None
    allowed = [course.allowed for course in courses]
    return [tokens for tokens in allowed if tokens is not None] if allowed[0] is not None else None


def _after(courses: Sequence[Course], tokens: Sequence[int], going: Sequence[bool]) -> list[Course]:
    """Every course after its token; of those that are over, as they were."""
    return [course.after(token) if on else course for course, token, on in zip(courses, tokens, going, strict=True)]


def _tried(
    courses: Sequence[Course], parents: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], over: Sequence[Sequence[bool]]
) -> list[list[Course]]:
    """The course of every candidate of every input."""
    beams = len(courses) // len(parents)
    return [
        _after([courses[place * beams + parent] for parent in one], wanted, [not ended for ended in ends])
        for place, (one, wanted, ends) in enumerate(zip(parents, tokens, over, strict=True))
    ]
