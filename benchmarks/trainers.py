"""The two trainers that the training benchmarks compare, and the examples that both get.

Hugging Face's Seq2SeqTrainer runs as someone who knows it would run it: dynamic padding, sdpa, its fused AdamW, autocast forced in
bfloat16 (its ``bf16`` leaves it out on a CPU), the loss divided by the target tokens of the whole step (its own way multiplies T5's
gradients by the number of accumulated batches), no evaluation, saving or logging. Making batches is left out of both clocks: that
is what loader processes are for.
"""

from __future__ import annotations

import logging
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.nn import functional
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from mengzi_mt.config import LengthSettings, Recipe, TrainingSettings, load_recipe
from mengzi_mt.data.mixture import Mixture
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.batches import pack_step
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.losses import LossModule, accumulate
from mengzi_mt.training.setup import read_mixture

STEP = 48
"""Examples of an optimiser step."""
MICRO_BATCH_TOKENS = 4_096
TOKENIZER = "models/mengzi-mt-mini"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Peer:
    """A way to run Hugging Face's trainer.

    Attributes:
        strategy: ``train_sampling_strategy``.
        batch: examples of a forward pass; ``STEP // batch`` of them are accumulated.
    """

    strategy: str
    batch: int


PEERS = {
    "Hugging Face, random": Peer("random", 16),
    "Hugging Face, group_by_length": Peer("group_by_length", 16),
    "Hugging Face, batch_rebalance": Peer("batch_rebalance", 4),
}
"""Its default, its fastest, and the one that sorts within a step whose examples are drawn at random, as ours does (it needs many
small batches a step to get rid of the padding)."""


@dataclass
class Measured:
    """What a trainer did; ``tasks`` and ``templates`` are those of each forward pass and of each step."""

    tokens: int = 0
    slots: int = 0
    seconds: float = 0.0
    batch_tasks: list[int] = field(default_factory=list)
    step_tasks: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Non-padding tokens of both sides a second of processor time."""
        return self.tokens / self.seconds


def public_extracts(data_dir: Path) -> DataSource:
    """The real files, as the shipped data map finds them."""
    return DataSource("files", data_dir, load_data_map(Path("public-extracts")))


def full_recipe() -> Recipe:
    """The recipe whose mixture both trainers read: the full run's, with the tokenizer that is at hand."""
    return load_recipe("mt-base", ["model.init=null", "model.shape=base", f"model.tokenizer={TOKENIZER}"])


def tokenised(mixture: Mixture, recipe: Recipe, number: int, first: int = 0) -> list[TokenizedExample]:
    """The mixture's examples from position ``first`` on; those that do not fit the limits are passed over."""
    encoder = Encoder(load_tokenizer(resolve(TOKENIZER)))
    limits = Limits(recipe.lengths.max_input, recipe.lengths.max_target)
    found: list[TokenizedExample] = []
    while len(found) < number:
        texts = list(mixture.examples(first, first + number))
        found += [example for example in encoder.examples(texts, limits) if example is not None]
        first += number
    return found[:number]


def mixture_examples(data_dir: Path, number: int) -> list[TokenizedExample]:
    """Tokenised examples of the full run's mixture."""
    recipe = full_recipe()
    return tokenised(read_mixture(recipe, public_extracts(data_dir)), recipe, number)


def quiet() -> None:
    """One thread, no warnings."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


class _Trainer(Seq2SeqTrainer):
    """Counts what each forward pass holds, and forces autocast where asked."""

    measured: Measured
    bfloat16: bool
    choose: Callable[[list[int]], list[int]] | None
    _tasks: list[set[int]]

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The library's, counted."""
        done, tasks = self.measured, set(inputs.pop("task").tolist())
        done.tokens += int(inputs["attention_mask"].sum() + (inputs["labels"] != -100).sum())
        done.slots += inputs["input_ids"].numel() + inputs["labels"].numel()
        done.batch_tasks.append(len(tasks))
        self._tasks.append(tasks)
        if len(self._tasks) == self.args.gradient_accumulation_steps:
            done.step_tasks.append(len(set().union(*self._tasks)))
            self._tasks = []
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The library's."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            return super().compute_loss(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        return self.choose(list(sampler)) if self.choose else sampler


class _Clock(TrainerCallback):
    """Processor time of optimiser steps alone, from the first forward pass to the gradients set to zero."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.started = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.measured.seconds += time.process_time() - self.started


def token_mean(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Cross-entropy over the target tokens of the whole step."""
    logits = outputs.logits
    total = functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1), ignore_index=-100, reduction="sum")
    return total / num_items_in_batch


def across_lengths(lengths: Sequence[int], steps: int, seed: int) -> Callable[[list[int]], list[int]]:
    """A choice of ``steps`` steps from an epoch, short and long ones alike: a grouped epoch begins with the longest."""

    def choose(order: list[int]) -> list[int]:
        blocks = [order[i : i + STEP] for i in range(0, len(order) - STEP + 1, STEP)]
        blocks.sort(key=lambda block: sum(lengths[i] for i in block))
        draw = random.Random(seed)
        return [i for n in range(steps) for i in blocks[int((n + draw.random()) * len(blocks) / steps)]]

    return choose


def hugging_face(
    model: Any,
    tokenizer: Any,
    examples: Sequence[TokenizedExample],
    peer: Peer,
    steps: int,
    seed: int,
    *,
    bfloat16: bool = False,
    spread: bool = False,
    optimisers: tuple[Any, Any] = (None, None),
    measured: Measured | None = None,
    callbacks: Iterable[TrainerCallback] = (),
) -> Measured:
    """Some steps of the library's trainer.

    Args:
        model: trained where it is.
        tokenizer: for the collator.
        examples: the data set.
        peer: sampler and batch.
        steps: optimiser steps.
        seed: of the sampler and of dropout.
        bfloat16: force autocast.
        spread: take steps of all lengths from a grouped epoch instead of its first ones.
        optimisers: optimiser and schedule, or the library's.
        measured: where to count.
        callbacks: further ones.
    """
    from datasets import Dataset

    measured = measured or Measured()
    numbers = {name: n for n, name in enumerate(sorted({e.task for e in examples}))}
    rows = [{"input_ids": e.inputs, "labels": e.targets, "length": len(e.inputs), "task": numbers[e.task]} for e in examples]
    collator = DataCollatorForSeq2Seq(tokenizer, model=model, padding=True)

    def collate(features: list[dict[str, Any]]) -> Any:
        tasks = torch.tensor([feature["task"] for feature in features])
        texts = [{key: feature[key] for key in ("input_ids", "labels")} for feature in features]
        return {**collator(texts), "task": tasks}

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=peer.batch,
            gradient_accumulation_steps=STEP // peer.batch, train_sampling_strategy=peer.strategy, length_column_name="length",
            learning_rate=1e-4, lr_scheduler_type="constant", max_grad_norm=1.0, save_strategy="no", logging_strategy="no",
            report_to=[], use_cpu=True, seed=seed, disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = _Trainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), data_collator=collate, optimizers=optimisers,
            compute_loss_func=token_mean, callbacks=[_Clock(measured), *callbacks],
        )  # fmt: skip
        trainer.measured, trainer.bfloat16, trainer._tasks = measured, bfloat16, []
        grouped = spread and peer.strategy == "group_by_length"
        trainer.choose = across_lengths([len(e.inputs) for e in examples], steps, seed) if grouped else None
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return measured


def ours(
    model: Any,
    steps: Iterable[Sequence[TokenizedExample]],
    optimiser: torch.optim.Optimizer,
    *,
    bfloat16: bool = False,
    measured: Measured | None = None,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> Measured:
    """Some steps of this trainer, each of the examples given; ``before`` and ``after`` each step are not timed."""
    measured = measured or Measured()
    settings = TrainingSettings(steps=1, precision="bfloat16" if bfloat16 else "float32", loss_weighting="token", device="cpu")
    devices, module = Devices(settings), LossModule(model, settings)
    model.train()
    for chosen in steps:
        batch = pack_step(chosen, LengthSettings(), MICRO_BATCH_TOKENS, 0, 0, layout="flat")
        before()
        started = time.process_time()
        accumulate(module, batch, devices)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        measured.seconds += time.process_time() - started
        measured.tokens += batch.tokens
        measured.slots += batch.slots
        measured.step_tasks.append(len(batch.examples))
        measured.batch_tasks += [len(set(part.tasks)) for part in batch.batches]
        after()
    return measured
