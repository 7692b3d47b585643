import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mengzi_mt.cli.main import app
from mengzi_mt.config import OptimiserSettings, Recipe
from mengzi_mt.data.collate import collate
from mengzi_mt.data.flat import flat_batches
from mengzi_mt.data.packing import micro_batches, pack
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.models.shapes import SHAPES, Shape
from mengzi_mt.models.t5 import build_model, parameter_count, shape_config
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.flops import Work, training_flops
from mengzi_mt.training.optimisers import make_optimiser
from mengzi_mt.training.plan import make_plan, plan_memory, planned_config, state_bytes
from mengzi_mt.training.preparation import set_up_data

# Resident memory is read from Linux's /proc; a child that has made nothing else yet, so that no freed memory is used again.
PEAK = """
import json, re, sys
from pathlib import Path
import torch
from mengzi_mt.config import Recipe
from mengzi_mt.models.t5 import build_model
from mengzi_mt.training.losses import LossModule
from tests.training.test_plan import batch_of

def resident(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

shape, layout, raw = json.loads(sys.argv[1])
settings = Recipe.model_validate(raw).training
torch.set_num_threads(1)
model = build_model(shape, 2_400, 0.1).train()
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter).add_(1)
LossModule(model, settings)(batch_of(40, layout))[0].backward()
batch = batch_of(3_000, layout)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
LossModule(model, settings)(batch)[0].backward()
print(resident("VmHWM") - before)
"""


def recipe(shape="micro", **training):
    return {
        "name": "plan",
        "model": {"shape": shape, "tokenizer": "models/mengzi-mt-mini", "dropout": 0.1},
        "mixture": {"tasks": ["lcqmc", "finre"]},
        "lengths": {"max_input": 192, "max_target": 16, "rows": [[192, 32]]},
        "training": {"steps": 40, "batch": 32, "micro_batch_tokens": 900, **training},
    }


def batch_of(tokens, layout):
    """One forward pass of examples of several lengths."""
    draw = random.Random(0)
    examples = []
    while sum(len(e.inputs) + len(e.targets) for e in examples) < tokens:
        sizes = draw.choice([12, 40, 90, 180]), draw.randint(2, 12)
        examples.append(TokenizedExample([5] * sizes[0], [6] * sizes[1], 1.0, "a", "t", "r", 0))
    if layout == "flat":
        return next(flat_batches(examples, 10**6, 0))
    rows = pack(examples, Recipe.model_validate(recipe()).lengths)
    return next(iter(collate(group, 0, 0) for group in micro_batches(rows, 10**6)))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize(
    ("shape", "layout", "training"),
    [
        ("micro", "flat", {}),
        pytest.param("mini", "flat", {"precision": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param("mini", "flat", {"recompute": True}, marks=pytest.mark.slow),
        pytest.param("micro", "packed", {}, marks=pytest.mark.slow),
    ],
)
def test_planned_activations_are_the_measured_ones(shape, layout, training):
    raw = recipe(shape, layout=layout, **training)
    planned = plan_memory(shape_config(shape, 2_400, 0.1), Recipe.model_validate(raw), batch_of(3_000, layout))
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", PEAK, json.dumps([shape, layout, raw])]
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # freed blocks go back to the system
    done = subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=True, env=at_once)
    measured = int(done.stdout)
    print(f"planned {(planned.activations + planned.working) / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB")
    assert planned.activations + planned.working == pytest.approx(measured, rel=0.15)


def test_figures_are_those_of_the_steps_that_training_reads():
    made = Recipe.model_validate(recipe(micro_batch_tokens=10_000))
    mixture, tokenizer = set_up_data(made, DataSource("sample"))
    plan = make_plan(made, mixture, tokenizer, samples=2)
    encoder, sizes = Encoder(tokenizer), []
    for first in (0, 39 * 32):
        found = encoder.examples(list(mixture.examples(first, first + 32)), Limits(192, 16))
        sizes += [(len(example.inputs), len(example.targets)) for example in found if example is not None]
    assert (plan.steps, plan.examples, plan.padding, plan.passes) == (40, 32, 0.0, 1.0)
    assert plan.input_tokens == sum(inputs for inputs, _ in sizes) / 2
    assert plan.target_tokens == sum(targets for _, targets in sizes) / 2
    assert plan.too_long == 1 - len(sizes) / 64
    config = planned_config(made, tokenizer)
    assert plan.flops == training_flops(config, Work.of_lengths(sizes)) / 2
    assert plan.hours(plan.run_flops) == 1 / 3600
    assert plan.parameters == parameter_count(build_model("micro", len(tokenizer)))
    assert plan.memory.weights == plan.memory.gradients == 4 * plan.parameters


@pytest.mark.parametrize("name", ["adamw", "adamw_scaled", "adafactor"])
@pytest.mark.parametrize("shape", ["micro", "small"])
def test_states_are_those_that_the_optimiser_makes(monkeypatch, name, shape):
    monkeypatch.setitem(SHAPES, "small", Shape(64, 16, 96, 1, 4, 300, tied=False))
    settings = OptimiserSettings(name=name)
    model = build_model(shape, 300)
    optimiser = make_optimiser(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    states = [value for state in optimiser.state.values() for value in state.values()]
    made = sum(value.nbytes for value in states if isinstance(value, torch.Tensor) and value.ndim)
    assert state_bytes(list(model.parameters()), settings) == made


def test_what_is_not_trained_has_no_gradient_and_no_state():
    part, config = batch_of(40, "flat"), shape_config("micro", 2_400)
    whole = plan_memory(config, Recipe.model_validate(recipe()), part)
    frozen = plan_memory(config, Recipe.model_validate(recipe(freeze=["*", "!encoder.final_layer_norm.*"])), part)
    assert (frozen.gradients, frozen.optimiser) == (4 * 128, 8 * 128)
    assert frozen.weights == whole.weights and whole.average == 0
    averaged = plan_memory(config, Recipe.model_validate(recipe(ema=0.9)), part)
    assert averaged.average == averaged.gradients


def test_a_checkpoint_is_planned_from_its_configuration_alone(tmp_path, tokenizer):
    config = {**shape_config("small", 32_128).to_dict(), "tie_word_embeddings": False}
    config.pop("scale_decoder_outputs", None)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    raw = recipe()
    raw["model"] = {"init": str(tmp_path), "tokenizer": "models/mengzi-mt-mini", "dropout": 0.1}
    found = planned_config(Recipe.model_validate(raw), tokenizer)
    assert (found.num_layers, found.dropout_rate) == (8, 0.1)
    assert plan_memory(found, Recipe.model_validate(raw), batch_of(40, "flat")).weights == 4 * 76_961_152


def test_dry_run_prints_and_writes_nothing(tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps({**recipe(), "output": str(tmp_path / "run")}), encoding="utf-8")
    app(["train", str(path), "--data", "sample", "--dry-run", "--mfu", "0.5"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "hours at 50% of the peak" in shown and "at the fullest moment" in shown and "2 tasks" in shown
    assert not (tmp_path / "run").exists()
