"""A T5 by transformers alone, in float32: what the forms of a pipeline are held against.

It generates with ``generate`` over padded batches, and scores a row for each choice, the input encoded anew for each, as who has
nothing but the model does (T0's evaluation, and lm-evaluation-harness).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.models.t5 import load_model
from mengzi_mt.models.tokenizer import load_tokenizer

IGNORED = -100


class PlainTransformers:
    """Scores and generates; batches hold ``batch`` sequences at most."""

    def __init__(self, place: str, batch: int, max_input: int, new_tokens: int) -> None:
        self.model, self.encoder = load_model(place).eval(), Encoder(load_tokenizer(place))
        self.batch, self.max_input, self.new_tokens = batch, max_input, new_tokens

    @torch.inference_mode()
    def score(self, examples: Sequence[TextExample]) -> list[list[float]]:
        """Log-probabilities of each example's choices, end-of-sequence included."""
        pairs = [
            (place, [*self.encoder(choice), self.encoder.eos]) for place, one in enumerate(examples) for choice in one.choices or ()
        ]
        inputs = [self._inputs(one) for one in examples]
        pairs.sort(key=lambda pair: len(inputs[pair[0]]))  # stable: a row's choices keep their order
        scores: list[list[float]] = [[] for _ in examples]
        for start in range(0, len(pairs), self.batch):
            part = pairs[start : start + self.batch]
            ids, mask = _padded([inputs[place] for place, _ in part])
            labels = pad_sequence([torch.tensor(choice) for _, choice in part], batch_first=True, padding_value=IGNORED)
            logits = self.model(input_ids=ids, attention_mask=mask, labels=labels).logits  # (pairs, length, vocabulary)
            lost = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
            for (place, _), value in zip(part, (-lost.sum(1)).tolist(), strict=True):
                scores[place].append(value)
        return scores

    @torch.inference_mode()
    def generate(self, examples: Sequence[TextExample]) -> list[str]:
        """Greedy answers."""
        inputs = [self._inputs(one) for one in examples]
        texts = [""] * len(examples)
        order = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
        for start in range(0, len(order), self.batch):
            places = order[start : start + self.batch]
            ids, mask = _padded([inputs[place] for place in places])
            found = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=self.new_tokens, do_sample=False, num_beams=1
            )
            for place, tokens in zip(places, found.tolist(), strict=True):
                texts[place] = str(self.encoder.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return texts

    def _inputs(self, example: TextExample) -> list[int]:
        return self.encoder.inputs(example, self.max_input)[0]


def _padded(several: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, (rows, longest)."""
    ids = pad_sequence([torch.tensor(one) for one in several], batch_first=True)
    mask = pad_sequence([torch.ones(len(one), dtype=torch.long) for one in several], batch_first=True)
    return ids, mask
