"""Fine-tuning an encoder on a task of the registry for a fixed number of steps, and its score on the validation split.

Deterministic by its seed; the settings are the same for every encoder that is compared.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from mengzi_mt.errors import RunError
from mengzi_mt.models.devices import pick_device
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.pretraining.encoder_models import give_roles, load_encoder
from mengzi_mt.pretraining.finetuning_data import UNTAGGED, Entity, Kind, TaskData, TaskRow, exact_f1, load_task_data, spans
from mengzi_mt.pretraining.finetuning_settings import FinetuningSettings
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.optimisers import learning_rate, make_optimiser, set_learning_rate

_STRETCH = 16
"""Batches whose rows are sorted by length together."""


class TaskModel(nn.Module):
    """An encoder with a head: classes from the first state through a tanh layer, as BERT's; entities from every state.

    Args:
        model: whose encoder is taken.
        kind: of the task.
        labels: how many.
        seed: of the head's weights.
    """

    def __init__(self, model: PreTrainedModel, kind: Kind, labels: int, seed: int) -> None:
        super().__init__()
        hidden = int(model.config.hidden_size)
        self.encoder: Any = model.base_model
        self.dropout = nn.Dropout(model.config.hidden_dropout_prob)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pooler = None if kind == "entities" else nn.Linear(hidden, hidden)
            self.head = nn.Linear(hidden, labels)
            for layer in (self.pooler, self.head):
                if layer is not None:
                    nn.init.normal_(layer.weight, std=0.02)
                    nn.init.zeros_(layer.bias)

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """``(rows, labels)`` of classes, ``(rows, length, labels)`` of entities; all arguments are ``(rows, length)``."""
        states = self.encoder(input_ids=ids, token_type_ids=segments, attention_mask=mask).last_hidden_state
        if self.pooler is not None:
            states = torch.tanh(self.pooler(states[:, 0]))
        logits: Tensor = self.head(self.dropout(states))
        return logits


def finetune(
    checkpoint: Path, task: str, source: DataSource, settings: FinetuningSettings, seed: int, device: str = "auto"
) -> dict[str, Any]:
    """Fine-tune a checkpoint and score it.

    Args:
        checkpoint: folder of an encoder with its tokenizer.
        task: of the registry.
        source: where its files are.
        settings: the same for all that are compared.
        seed: of the training rows, their order, the head and dropout.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        ``score`` (0 to 1) by ``metric``; ``floor`` (the majority class) or ``ceiling`` (what tags of tokens can reach); rows,
        steps, tokens, the last steps' loss, provenance, and seconds of reading, training and scoring.

    Raises:
        InputError: an unfit task, missing files, no encoder.
        RunError: a loss that is no number.
    """
    began = time.perf_counter()
    tokenizer: Any = load_tokenizer(checkpoint)
    give_roles(tokenizer)
    data = load_task_data(task, source, tokenizer, settings.rows, settings.validation_rows, settings.window, seed)
    place = pick_device(device, "training.device")
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        model = TaskModel(load_encoder(str(checkpoint), tokenizer, settings.dropout), data.kind, len(data.labels), seed)
        nn.Module.to(model, place)
        read = time.perf_counter()
        trained = _train(model, data, settings, seed, tokenizer.pad_token_id, place)
        done = time.perf_counter()
    return {
        "task": task,
        "kind": data.kind,
        **_score(model, data, settings, tokenizer.pad_token_id, place),
        "seed": seed,
        "train_rows": len(data.train),
        "validation_rows": len(data.validation),
        "steps": settings.steps,
        **trained,
        "provenance": data.provenance,
        "seconds": {"read": read - began, "train": done - read, "score": time.perf_counter() - done},
    }


def _train(
    model: TaskModel, data: TaskData, settings: FinetuningSettings, seed: int, pad: int, device: torch.device
) -> dict[str, Any]:
    optimiser = make_optimiser(model, settings.optimiser)
    tokens, losses = 0, []
    model.train()
    for step, rows in zip(range(settings.steps), batches(data.train, settings.batch, seed), strict=False):
        set_learning_rate(optimiser, learning_rate(settings.optimiser, step, settings.steps))
        logits = _logits(model, rows, settings.precision, pad, device)
        loss = cross_entropy(logits.flatten(0, -2), _gold(rows, data.kind).to(device).flatten(), ignore_index=UNTAGGED)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.optimiser.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        tokens += sum(len(row.ids) for row in rows)
    last = float(torch.stack(losses[-50:]).mean())
    if not math.isfinite(last):
        raise RunError(f"The loss is {last}", where=f"fine-tuning on {data.task}", fix="lower finetuning.optimiser.learning_rate")
    return {"tokens": tokens, "loss": last}


@torch.no_grad()
def _score(model: TaskModel, data: TaskData, settings: FinetuningSettings, pad: int, device: torch.device) -> dict[str, Any]:
    model.eval()
    order = sorted(range(len(data.validation)), key=lambda number: len(data.validation[number].ids))
    answers: dict[int, list[int]] = {}
    for start in range(0, len(order), 4 * settings.batch):
        numbers = order[start : start + 4 * settings.batch]
        best = _logits(model, [data.validation[number] for number in numbers], settings.precision, pad, device).argmax(-1)
        answers |= dict(zip(numbers, best.reshape(len(numbers), -1).tolist(), strict=True))
    if data.kind == "entities":
        gold = [row.entities for row in data.validation]
        found = [_spans(row, answers[number], data.labels) for number, row in enumerate(data.validation)]
        best_possible = [_spans(row, row.tags, data.labels) for row in data.validation]
        return {"metric": "exact_entity_f1", "score": exact_f1(found, gold), "ceiling": exact_f1(best_possible, gold)}
    right = sum(answers[number][0] == row.label for number, row in enumerate(data.validation))
    most = Counter(row.label for row in data.validation).most_common(1)[0][1]
    return {"metric": "accuracy", "score": right / len(data.validation), "floor": most / len(data.validation)}


def _spans(row: TaskRow, tags: Sequence[int], labels: Sequence[str]) -> set[Entity]:
    own = [number for number, tag in enumerate(row.tags) if tag != UNTAGGED]
    return spans([row.places[number] for number in own], [labels[tags[number]] for number in own])


def _logits(model: TaskModel, rows: Sequence[TaskRow], precision: str, pad: int, device: torch.device) -> Tensor:
    """Of some rows, float32."""
    ids, segments = (_padded([getattr(row, name) for row in rows], fill) for name, fill in (("ids", pad), ("segments", 0)))
    mask = _padded([[1] * len(row.ids) for row in rows], 0).bool()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        found: Tensor = model(ids.to(device), segments.to(device), mask.to(device))
    return found.float()


def _gold(rows: Sequence[TaskRow], kind: Kind) -> Tensor:
    """``(rows,)`` classes, or ``(rows, length)`` tags."""
    return _padded([row.tags for row in rows], UNTAGGED) if kind == "entities" else torch.tensor([row.label for row in rows])


def _padded(lists: Sequence[Sequence[int]], fill: int) -> Tensor:
    longest = max(map(len, lists))
    return torch.tensor([[*one, *[fill] * (longest - len(one))] for one in lists])


def batches(rows: Sequence[TaskRow], batch: int, seed: int) -> Iterator[list[TaskRow]]:
    """Batches without end. Each epoch has an order of its own, in which rows of like length stand together.

    Every row comes once an epoch, but for the last few of an epoch that would make a smaller batch than the others.
    """
    size = min(batch, len(rows))
    epoch = 0
    while True:
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(rows))[: len(rows) // size * size].tolist()
        for start in range(0, len(order), _STRETCH * size):
            stretch = sorted(order[start : start + _STRETCH * size], key=lambda number: len(rows[number].ids))
            groups = [stretch[at : at + size] for at in range(0, len(stretch), size)]
            for number in random.permutation(len(groups)).tolist():
                yield [rows[one] for one in groups[number]]
        epoch += 1
