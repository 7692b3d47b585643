import logging
import statistics

import pytest

from benchmarks.trainers import PEERS, STEP, full_recipe, hugging_face, ours, tokenised
from mengzi_mt.config import OptimiserSettings
from mengzi_mt.models.t5 import build_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.optimisers import make_optimiser
from mengzi_mt.training.setup import read_mixture

ROUNDS, STEPS = 3, 2
GATE = 1.05


@pytest.fixture
def no_warnings():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_training_beats_hugging_faces_length_grouped_batches_with_more_tasks_in_each(no_warnings):
    """The gate of ``benchmarks/train_speed.py`` on a small scale: bundled samples, ``micro``, processor time."""
    recipe, tokenizer = full_recipe(), load_tokenizer(resolve("models/mengzi-mt-mini"))
    examples = tokenised(read_mixture(recipe, DataSource("sample")), recipe, 4_800)
    model = build_model("micro", len(tokenizer), 0.1)
    optimiser = make_optimiser(model, OptimiserSettings(name="adamw", learning_rate=1e-4))
    ratios = []
    for number in range(ROUNDS):
        grouped = hugging_face(model, tokenizer, examples, PEERS["Hugging Face, group_by_length"], STEPS, number, spread=True)
        parts = [examples[(ROUNDS * n + number) * STEP :][:STEP] for n in range(STEPS)]
        mixed = ours(model, parts, optimiser)
        assert mixed.tokens == mixed.slots < grouped.slots
        assert statistics.mean(mixed.batch_tasks) > statistics.mean(grouped.batch_tasks)
        ratios.append(mixed.rate / grouped.rate)
    assert statistics.median(ratios) >= GATE, ratios
