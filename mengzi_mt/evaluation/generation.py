"""Greedy generation for open tasks, batched over inputs of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.tokens import Encoder


class Generator:
    """Greedy decoding with one model."""

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_input: int = 512,
        max_new_tokens: int = 128,
        batch_size: int = 32,
        precision: str = "float32",
    ) -> None:
        self.model = model.eval()
        self.encoder = Encoder(tokenizer)
        self.max_input = max_input
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.precision = precision
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def generate(self, examples: Sequence[TextExample], advance: Callable[[int], None] | None = None) -> list[str]:
        """The generated text of every example, in the examples' order.

        Args:
            examples: their inputs are cut to ``max_input`` where shrinkable text allows.
            advance: called with the number of examples finished, after each batch.
        """
        inputs = [self.encoder.inputs(example, self.max_input)[0] for example in examples]
        order = sorted(range(len(inputs)), key=lambda place: (len(inputs[place]), place))
        texts = [""] * len(inputs)
        for at in range(0, len(order), self.batch_size):
            places = order[at : at + self.batch_size]
            longest = max(len(inputs[place]) for place in places)
            ids = torch.full((len(places), longest), self.encoder.pad)
            mask = torch.zeros((len(places), longest), dtype=torch.long)
            for row, place in enumerate(places):
                ids[row, : len(inputs[place])] = torch.tensor(inputs[place])
                mask[row, : len(inputs[place])] = 1
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
                outputs = self.model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    max_new_tokens=self.max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                )
            decoded = self.encoder.tokenizer.batch_decode(outputs, skip_special_tokens=True)
            for place, text in zip(places, decoded, strict=True):
                texts[place] = text.strip()
            if advance:
                advance(len(places))
        return texts
