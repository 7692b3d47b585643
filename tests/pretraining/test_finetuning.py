from itertools import islice

import pytest
import torch

from mengzi_mt.errors import RunError
from mengzi_mt.pretraining import finetuning
from mengzi_mt.pretraining.encoder_loop import train_encoder
from mengzi_mt.pretraining.encoder_run import set_up_encoder
from mengzi_mt.pretraining.finetuning import batches, finetune
from mengzi_mt.pretraining.finetuning_data import TaskRow
from mengzi_mt.pretraining.finetuning_settings import FinetuningSettings
from mengzi_mt.tasks.rows import DataSource

SAMPLE = DataSource("sample")


@pytest.fixture
def checkpoint(make_recipe):
    return train_encoder(set_up_encoder(make_recipe(steps=1, pos=0, ner=0, order="none")))


def settings(**given):
    return FinetuningSettings.model_validate(
        {"tasks": ["lcqmc"], "rows": 60, "validation_rows": 30, "steps": 4, "batch": 8, **given}
    )


def rows_of(lengths):
    return [TaskRow([number] * length, [0] * length, 0, [], [], frozenset()) for number, length in enumerate(lengths)]


def test_batches_hold_every_row_once_an_epoch_by_length():
    rows = rows_of([3 + n % 40 for n in range(320)])
    epoch = list(islice(batches(rows, 8, 5), 40))
    assert sorted(row.ids[0] for batch in epoch for row in batch) == list(range(320))
    padding = sum(max(len(row.ids) for row in batch) * len(batch) - sum(len(row.ids) for row in batch) for batch in epoch)
    assert padding < 0.1 * sum(len(row.ids) for row in rows)
    again = list(islice(batches(rows, 8, 5), 40))
    other = list(islice(batches(rows, 8, 6), 40))
    assert epoch == again
    assert epoch != other
    assert list(islice(batches(rows, 8, 5), 40, 80)) != epoch
    assert [len(batch) for batch in islice(batches(rows_of([4] * 5), 8, 0), 3)] == [5, 5, 5]


@pytest.mark.parametrize(("task", "limit"), [("thucnews_title", "floor"), ("lcqmc", "floor"), ("cluener2020", "ceiling")])
def test_every_kind_is_trained_scored_and_repeatable(checkpoint, task, limit):
    state = torch.get_rng_state()
    first, again = (finetune(checkpoint, task, SAMPLE, settings(tasks=[task]), 1, "cpu") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for one in (first, again):
        assert set(one.pop("seconds")) == {"read", "train", "score"}
    assert first == again
    assert 0 <= first["score"] <= 1
    assert 0 < first[limit] <= 1
    assert (first["steps"], first["seed"], first["provenance"]["train"]["source"]) == (4, 1, "sample")
    assert finetune(checkpoint, task, SAMPLE, settings(tasks=[task]), 2, "cpu")["loss"] != first["loss"]


def test_it_learns_what_it_reads(checkpoint, monkeypatch):
    """Trained long on few rows and scored on these, a model knows them."""
    real = finetuning.load_task_data

    def same_rows(*given):
        data = real(*given)
        return finetuning.TaskData(data.task, data.kind, data.labels, data.train, data.train, data.provenance)

    monkeypatch.setattr(finetuning, "load_task_data", same_rows)
    adamw = {"name": "adamw", "learning_rate": 3e-3, "schedule": "constant", "warmup": 5}
    long = settings(rows=16, steps=60, dropout=0.0, optimiser=adamw)
    assert finetune(checkpoint, "thucnews_title", SAMPLE, long, 1, "cpu")["score"] > 0.9
    found = finetune(checkpoint, "cluener2020", SAMPLE, long, 1, "cpu")
    assert found["score"] > 0.9 * found["ceiling"]


def test_scores_do_not_depend_on_batches(checkpoint, monkeypatch):
    scores = []
    for batch in (2, 30):
        monkeypatch.setattr(finetuning, "_train", lambda *given: {"tokens": 0, "loss": 0.0})
        scores.append(finetune(checkpoint, "cluener2020", SAMPLE, settings(batch=batch), 1, "cpu")["score"])
    assert scores[0] == scores[1]


def test_a_loss_that_is_no_number_says_what_to_lower(checkpoint, monkeypatch):
    monkeypatch.setattr(finetuning, "cross_entropy", lambda logits, *_, **__: logits.sum() * torch.nan)
    with pytest.raises(RunError, match=r"finetuning\.optimiser\.learning_rate"):
        finetune(checkpoint, "lcqmc", SAMPLE, settings(), 1, "cpu")


def test_bfloat16_runs(checkpoint):
    assert finetune(checkpoint, "lcqmc", SAMPLE, settings(precision="bfloat16"), 1, "cpu")["loss"] > 0
