"""Greedy generation by transformers' own ``generate``: for decoder-only models, and for encoder-decoders other than T5.

An answer ends at the model's end-of-sequence. A decoder-only model that was never taught to stop would go on with the next
question, so there an answer also ends at the end of its first line (:data:`LINE`); line breaks before the first character do not
count.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria

from mengzi_mt.data.constraints import Constraint
from mengzi_mt.data.examples import TextExample
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.conventions import make_convention
from mengzi_mt.evaluation.generation import Generated, check_no_repeat

LINE = ("\n",)
_KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")


class PlainGenerator:
    """Greedy decoding with one model. Batch size and neighbours do not change the answers, rounding aside."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_input: int = 512,
        max_new_tokens: int = 128,
        batch_size: int = 32,
        stop: Sequence[str] | None = None,
    ) -> None:
        """Take the model as it is now. Its generation settings are replaced by greedy ones.

        Args:
            model: a causal or encoder-decoder language model of transformers, on the device and in the precision to use.
            tokenizer: the model's; needs no padding.
            max_input: input tokens, special ones included; shrinkable text is cut to fit.
            max_new_tokens: of an answer.
            batch_size: examples of a forward pass at most; they have inputs of like length.
            stop: texts that end an answer and do not belong to it; by default :data:`LINE` for decoder-only models, none else.
        """
        self.model = model.eval()
        self.decoder_only = not model.config.is_encoder_decoder
        self.convention = make_convention("mengzi", "decoder-only" if self.decoder_only else "encoder-decoder", tokenizer)
        self.tokenizer = tokenizer
        self.max_input = max_input
        self.max_new_tokens, self.no_repeat_ngram_size = max_new_tokens, 0
        self.batch_size = batch_size
        self.stop = tuple(stop) if stop is not None else LINE if self.decoder_only else ()
        own = model.generation_config
        kept = {name: getattr(own, name, None) for name in _KEPT}
        if kept["pad_token_id"] is None:
            ends = kept["eos_token_id"]
            kept["pad_token_id"] = (ends[0] if isinstance(ends, list) else ends) or 0
        model.generation_config = GenerationConfig(**kept)
        ends = kept["eos_token_id"]
        self.ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def adjusted(
        self, *, max_new_tokens: int | None = None, beams: int = 1, stop: Sequence[str] = (), no_repeat_ngram_size: int = 0
    ) -> PlainGenerator:
        """A generator of the same model with other settings; without ``stop`` an answer ends where it ended before.

        Raises:
            InputError: beams are asked for.
        """
        if beams != 1:
            raise InputError("Beam search is only there for T5", where=f"beams={beams}", fix="use 1, or a T5")
        check_no_repeat(no_repeat_ngram_size)
        other = copy.copy(self)
        other.max_new_tokens, other.no_repeat_ngram_size = max_new_tokens or self.max_new_tokens, no_repeat_ngram_size
        other.stop = tuple(stop) or self.stop
        return other

    @torch.inference_mode()
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
            constraint: only None.

        Raises:
            InputError: a constraint is asked for.
        """
        if constraint is not None:
            raise InputError("Constrained generation is only there for T5", where="constraint", fix="generate freely, or use a T5")
        fitted = [self.convention.inputs(example, self.max_input) for example in examples]
        order = sorted(range(len(fitted)), key=lambda place: (len(fitted[place][0]), place))
        answers = [Generated("")] * len(fitted)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            began = time.perf_counter()
            made = self._batch([fitted[place][0] for place in places])
            seconds = (time.perf_counter() - began) / len(places)
            for place, (text, log_p, tokens, finished) in zip(places, made, strict=True):
                answers[place] = Generated(text, log_p, tokens, finished, cut=fitted[place][1], seconds=seconds)
            if advance:
                advance(len(places))
        return answers

    def _batch(self, inputs: Sequence[Sequence[int]]) -> list[tuple[str, float, int, bool]]:
        """Text, log-probability, tokens and whether it ended by itself, of each input."""
        longest = max(map(len, inputs))
        ids = torch.full((len(inputs), longest), int(self.model.generation_config.pad_token_id))
        known = torch.zeros((len(inputs), longest), dtype=torch.long)
        for row, tokens in enumerate(inputs):
            where = slice(longest - len(tokens), None) if self.decoder_only else slice(0, len(tokens))
            ids[row, where] = torch.tensor(tokens)
            known[row, where] = 1
        steps = _Recorder()
        started = longest if self.decoder_only else 1
        stopped = _Stopped(self._ended, started)
        outputs = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=known.to(self.model.device),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            logits_processor=[steps],
            stopping_criteria=[stopped],
        )
        log_p = torch.stack(steps.log_p, dim=1).double().cpu()  # (rows, steps)
        return [self._answer(tokens, log_p[row]) for row, tokens in enumerate(outputs[:, started:].tolist())]

    def _ended(self, tokens: Sequence[int]) -> bool:
        """Whether a stop text stands in an answer so far."""
        return bool(self.stop) and self._cut(tokens)[1]

    def _cut(self, tokens: Sequence[int]) -> tuple[str, bool]:
        """The answer up to the first stop text, and whether there was one."""
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).lstrip()
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        return text[: min(places, default=len(text))].strip(), bool(places)

    def _answer(self, tokens: list[int], log_p: Tensor) -> tuple[str, float, int, bool]:
        # a stop text comes first: what follows it is padding, and padding may be the end-of-sequence
        ends = (n for n in range(1, len(tokens) + 1) if tokens[n - 1] in self.ends or self._ended(tokens[:n]))
        end = next(ends, None)
        count = end or len(tokens)
        return self._cut(tokens[:count])[0], float(log_p[:count].sum()), count, end is not None


class _Recorder(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Keeps the log-probability of each step's most probable token, which greedy decoding takes."""

    def __init__(self) -> None:
        self.log_p: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores as they are."""
        values = scores.float()
        self.log_p.append(values.max(dim=-1).values - values.logsumexp(dim=-1))
        return scores


class _Stopped(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Ends the rows in whose answers a stop text stands."""

    def __init__(self, ended: Callable[[Sequence[int]], bool], started: int) -> None:
        self.ended, self.started = ended, started

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which rows are done, ``(rows,)``."""
        done = [self.ended(tokens) for tokens in input_ids[:, self.started :].tolist()]
        return torch.tensor(done, device=input_ids.device)
