import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from mengzi_mt.denoising_settings import InstanceSettings
from mengzi_mt.pretraining import encoder_loop
from mengzi_mt.pretraining.encoder_batches import damage_weights, make_step
from mengzi_mt.pretraining.encoder_instances import EncoderInstances, original_ids, row_of, row_weights
from mengzi_mt.pretraining.encoder_loop import train_encoder
from mengzi_mt.pretraining.encoder_losses import EncoderLosses, accumulate, evaluate
from mengzi_mt.pretraining.encoder_recipe import EncoderRecipe
from mengzi_mt.pretraining.encoder_run import set_up_encoder, training_flops
from mengzi_mt.training.run_status import read_metrics

CPU = torch.device("cpu")
MLM = {"mlm": 1.0, "order": 0.0}


@pytest.fixture
def parts(make_recipe):
    """Module in float64, nine rows of two segments and padding, and weights of their own."""
    run = set_up_encoder(make_recipe(dropout=0.0, pos=0, ner=0))
    module = EncoderLosses(run.model.double(), run.heads.double())
    return module, run.maker.stream.examples(0, 9), np.linspace(0.5, 1.5, 9)


def slow_row(module, example):
    """One row alone: mean states of what is read, of the original and of the restored row, and the loss of each prediction."""

    def read(ids):
        found = module.model(input_ids=torch.tensor(ids)[None], token_type_ids=torch.tensor(example.segment)[None],
                             output_hidden_states=True)  # fmt: skip
        return found.hidden_states[-1][0].mean(0).detach(), found.logits[0].detach()

    corrupted, logits = read(example.read)
    restored = example.read.copy()
    places = np.flatnonzero(example.chosen)
    restored[places] = logits[places].argmax(-1).numpy()
    losses = functional.cross_entropy(logits[places], torch.tensor(example.original[places]), reduction="none").tolist()
    wrong = (restored[places] != example.original[places]).tolist()
    return corrupted, read(example.original)[0], read(restored)[0], losses, wrong


def slow_divergence(one, other):
    p, q = (torch.softmax(values, 0).tolist() for values in (one, other))
    return sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))


def slow_damage(example):
    text = example.chosen[example.text].tolist()
    stayed = [place for place, noise in enumerate(text) if not noise]
    far = [min(abs(place - other) for other in stayed) for place, noise in enumerate(text) if noise]
    return sum(d / (1 + d) for d in far) / len(text)


def slow_mean_one(values, counts, most):
    mean = sum(v * c for v, c in zip(values, counts, strict=True)) / sum(counts)
    kept = [min(max(v / mean, 1 / most), most) for v in values]
    middle = sum(k * c for k, c in zip(kept, counts, strict=True)) / sum(counts)
    return [k / middle for k in kept]


@pytest.mark.parametrize(("consistency", "tolerance"), [(0.7, 0.0), (0.0, 0.8), (0.7, 0.8), (0.0, 0.0)])
def test_the_loss_is_its_definition(parts, consistency, tolerance):
    module, examples, weights = parts
    instance = EncoderInstances(InstanceSettings(consistency=consistency, tolerance=tolerance, damage=1.0))
    expected, predictions, seen = 0.0, 0, []
    for example, weight in zip(examples, weights.tolist(), strict=True):
        _, original, restored, losses, wrong = slow_row(module, example)
        divergence = slow_divergence(original, restored)
        seen.append(divergence)
        predictions += len(losses)
        for loss, other in zip(losses, wrong, strict=True):
            expected += weight * (1 - tolerance * math.exp(-divergence) * other) * loss
        expected += consistency * weight * len(losses) * divergence
    observed = {}
    for tokens in (80, 10_000):
        heard = []
        step = make_step(examples, tokens, 0, weights)
        total = accumulate(module, step, MLM, CPU, lambda name, values, into=heard: into.append((name, values)), instance)
        assert float(total) == pytest.approx(expected / predictions, rel=1e-5)  # the total is kept in float32
        observed[tokens] = sorted(value for name, values in heard if name == "consistency" for value in values.tolist())
    if consistency or tolerance:
        assert observed[80] == pytest.approx(sorted(seen), rel=1e-9)
        assert observed[10_000] == pytest.approx(sorted(seen), rel=1e-9)
    else:
        assert observed == {80: [], 10_000: []}


def test_weights_by_damage_are_the_definition(parts):
    _, examples, _ = parts
    counts = [int(example.chosen.sum()) for example in examples]
    for power in (1.0, -0.5):
        expected = slow_mean_one([slow_damage(example) ** power for example in examples], counts, 3.0)
        assert damage_weights(examples, power, 3.0).tolist() == pytest.approx(expected, rel=1e-12)
    assert sum(w * c for w, c in zip(damage_weights(examples, 1.0, 3.0), counts, strict=True)) == pytest.approx(sum(counts))


@pytest.mark.parametrize("power", [1.0, -1.0])
def test_weights_by_distance_are_the_definition(parts, power):
    module, examples, weights = parts
    module.train()
    step = make_step(examples, 80, 0, weights)
    found = EncoderInstances(InstanceSettings(distance=power, most=2.0)).reweigh(module, step, CPU)
    assert module.training
    distances = []
    for example in examples:
        corrupted, original, *_ = slow_row(module, example)
        distances.append(1 - float(corrupted @ original / corrupted.norm() / original.norm()))
    counts = [float(weight) * int(example.chosen.sum()) for weight, example in zip(weights, examples, strict=True)]
    factors = slow_mean_one([distance**power for distance in distances], counts, 2.0)
    expected = sorted(factor * count for factor, count in zip(factors, counts, strict=True))
    assert sorted(torch.cat([row_weights(batch) for batch in found.batches]).tolist()) == pytest.approx(expected, rel=1e-5)
    assert sum(expected) == pytest.approx(sum(counts))


def test_originals_are_the_rows_before_the_corruption(parts):
    _, examples, weights = parts
    rows = []
    for batch in make_step(examples, 150, 0, weights).batches:
        rows += [ids[mask].tolist() for ids, mask in zip(original_ids(batch), batch.mask, strict=True)]
        assert torch.equal(row_of(batch), batch.restored // batch.input_ids.shape[1])
    assert sorted(rows) == sorted(example.original.tolist() for example in examples)


def test_consistency_moves_both_sides_and_the_encoder_learns(parts):
    module, examples, _ = parts
    step = make_step(examples, 10_000, 0)
    gradients = []
    for consistency in (0.0, 5.0):
        module.zero_grad()
        instance = EncoderInstances(InstanceSettings(consistency=consistency, tolerance=0.5))
        accumulate(module, step, MLM, CPU, None, instance)
        gradients.append(module.model.base_model.encoder.layer[0].output.dense.weight.grad.clone())
    assert not torch.allclose(*gradients)


def test_switched_off_it_is_not_there(make_recipe):
    recipe = make_recipe()
    assert recipe.objectives.observed == ["mlm", "pos", "ner", "order"]
    run = set_up_encoder(recipe)
    step = run.maker(0)
    assert all((batch.weights == 1).all() for batch in step.batches)
    more = make_recipe(instance={"consistency": 1.0, "distance": 1.0})
    assert training_flops(set_up_encoder(more), step) > 2 * training_flops(run, step) / 1.9


def test_a_run_with_all_of_it_resumes_and_logs_the_divergence(make_recipe, tmp_path, monkeypatch):
    settings = {"damage": 1.0, "distance": -0.5, "consistency": 0.3, "tolerance": 0.2, "sampled": True}
    whole = make_recipe(output=str(tmp_path / "whole"), instance=settings, steps=4)
    train_encoder(set_up_encoder(whole))
    cut = make_recipe(output=str(tmp_path / "cut"), instance=settings, steps=4)
    real = encoder_loop.accumulate
    calls = []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(encoder_loop, "accumulate", killed)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(set_up_encoder(cut))
    train_encoder(set_up_encoder(cut))
    losses = [[(r["step"], r["loss"], r["task_loss"]) for r in read_metrics(one.run_dir / "metrics.jsonl")] for one in (whole, cut)]
    assert losses[0] == losses[1]
    assert losses[0][0][2]["consistency"] > 0


def test_a_run_that_began_before_the_section_existed_goes_on(make_recipe, tmp_path):
    train_encoder(set_up_encoder(make_recipe(steps=2)))
    path = tmp_path / "run" / "step-0000002" / "trainer_state" / "state.json"
    state = json.loads(path.read_text())
    del state["recipe"]["objectives"]["instance"]
    path.write_text(json.dumps(state))
    manifest = tmp_path / "run" / "step-0000002" / "mengzi_mt.json"
    contents = json.loads(manifest.read_text())
    contents["files"]["trainer_state/state.json"] = path.stat().st_size
    manifest.write_text(json.dumps(contents))
    train_encoder(set_up_encoder(make_recipe(steps=2)))


def test_validation_has_plain_losses(parts):
    module, examples, weights = parts
    plain, weighed = (evaluate(module, make_step(examples, 200, 0, given), CPU) for given in (None, weights))
    assert plain == weighed


def test_the_recipes_section_is_checked():
    raw = {"name": "x", "corpus": "c", "model": {"shape": "micro", "tokenizer": "t"}, "training": {"steps": 1}}
    with pytest.raises(ValueError, match="consistancy"):
        EncoderRecipe.model_validate({**raw, "objectives": {"instance": {"consistancy": 1}}})
