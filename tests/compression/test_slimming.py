import copy
import json
import xml.etree.ElementTree as ET

import pytest
import torch
from torch.nn import functional

from mengzi_mt.compression.slimming import (
    MaskWatch,
    SlimLinear,
    Slimming,
    coefficients,
    distance_picture,
    fold,
    mask_distance,
    mask_of,
    read_looks,
    slim,
)  # fmt: skip
from mengzi_mt.data.flat import flat_batch
from mengzi_mt.data.tokens import TokenizedExample
from mengzi_mt.models.cross_entropy import LossSettings
from mengzi_mt.models.flat import flat_loss, flat_states
from mengzi_mt.models.pruned import remove_units, units_of
from mengzi_mt.models.t5 import checkpoint_weights

EXAMPLES = [TokenizedExample([5, 9, 7, 1], [8, 6, 1], 2.0, "a", "t", "1"), TokenizedExample([3, 1], [4, 1], 0.5, "a", "t", "2")]


@pytest.fixture
def model(tiny_model):
    return tiny_model(vocabulary=60).double().train()


def shaken(model, seed=0):
    """Coefficients as after some training: some negative, some small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for found in coefficients(model).values():
            found.copy_(torch.randn(found.shape, generator=generator))
    return model


def test_coefficients_of_one_change_nothing_and_each_unit_has_one(model):
    batch = flat_batch(EXAMPLES, 0)
    before = flat_states(model, batch)
    slim(model)
    torch.testing.assert_close(flat_states(model, batch), before)
    assert {name: len(found) for name, found in coefficients(model).items()} == {u.name: u.count for u in units_of(model)}


def test_a_coefficient_multiplies_the_output_of_its_head_and_the_activation_of_its_neuron(model):
    slim(model)
    shaken(model)
    attention = model.encoder.block[0].layer[0].SelfAttention
    dense = model.encoder.block[0].layer[1].DenseReluDense
    states = torch.randn(5, 32, dtype=torch.float64)
    heads = sum(
        attention.o.coefficients[head] * states[:, head * 8 : head * 8 + 8] @ attention.o.weight[:, head * 8 : head * 8 + 8].T
        for head in range(4)
    )
    torch.testing.assert_close(attention.o(states), heads)
    inside = functional.gelu(dense.wi_0(states), approximate="tanh") * dense.wi_1(states)
    looped = sum(dense.wo.coefficients[n] * inside[:, n : n + 1] * dense.wo.weight[:, n] for n in range(64))
    torch.testing.assert_close(dense(states), looped)


def test_the_penalty_is_lambda_times_the_l1_norm_of_all_coefficients_whatever_the_micro_batches(model):
    slim(model)
    shaken(model)
    norm = sum(abs(value) for found in coefficients(model).values() for value in found.tolist())
    weight = sum(one.weight * len(one.targets) for one in EXAMPLES)
    objective = Slimming(0.01, "plain")
    for parts in ([EXAMPLES], [[one] for one in EXAMPLES]):
        model.zero_grad()
        total, plain = 0.0, 0.0
        for part in parts:
            batch = flat_batch(part, 0)
            value, _ = objective.loss(model, batch, LossSettings(), recompute=False)
            (value / weight).backward()
            total += float(value) / weight
            plain += float(flat_loss(model, batch)[0].detach()) / weight
        assert total - plain == pytest.approx(0.01 * norm)
        first = model.encoder.block[0].layer[0].SelfAttention.o.coefficients
        slimmed = first.grad.clone()
        model.zero_grad()
        (flat_loss(model, flat_batch(EXAMPLES, 0))[0] / weight).backward()
        torch.testing.assert_close(slimmed - first.grad, 0.01 * first.sign())
    assert objective.parts(None, 1.0) == {"penalty": pytest.approx(0.01 * norm)}


@pytest.mark.parametrize("selection", ["layer", "global", "alike"])
def test_the_drawn_ticket_is_the_slimmed_model_with_the_others_at_zero(model, selection):
    slim(model)
    shaken(model)
    kept, _ = mask_of(model, {"heads": 0.5, "neurons": 0.4}, selection)
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for name, found in coefficients(expected).items():
            found[[unit for unit in range(len(found)) if unit not in kept[name]]] = 0
    fold(model)
    assert not any(isinstance(module, SlimLinear) for module in model.modules())
    assert not any("coefficients" in name for name in checkpoint_weights(model))
    remove_units(model, kept)
    batch = flat_batch(EXAMPLES, 0)
    torch.testing.assert_close(flat_states(model, batch), flat_states(expected, batch))


def test_the_smallest_coefficients_go_whatever_their_sign(model):
    slim(model)
    name = "encoder.block.0.layer.0.SelfAttention"
    with torch.no_grad():
        coefficients(model)[name].copy_(torch.tensor([-2.0, 0.1, -0.2, 0.3]))
    assert mask_of(model, {"heads": 0.5}, "layer")[0][name] == [0, 3]


def test_the_distance_is_the_share_of_units_in_which_masks_differ():
    one, other = {"a": [0, 1], "b": [2]}, {"a": [1, 3], "b": [2]}
    bits = [[number in mask[name] for name in "ab" for number in range(4)] for mask in (one, other)]
    assert mask_distance(one, other, 8) == sum(x != y for x, y in zip(*bits, strict=True)) / 8 == 0.25
    assert mask_distance(one, one, 8) == 0


def test_the_watch_waits_for_a_full_window_and_goes_on_after_an_interruption(model, tmp_path):
    slim(model)
    file = tmp_path / "run" / "masks.jsonl"
    watch = MaskWatch(file, {"heads": 0.5}, "layer", 2)
    shaken(model, 0)
    assert watch(model, 10) == {"mask_distance": 1.0}
    shaken(model, 1)
    assert watch(model, 20) == {"mask_distance": 1.0}
    moved = watch(model, 30)["mask_distance"]
    assert 0 < moved < 1  # the largest of the last two, of which the second is 0
    again = MaskWatch(file, {"heads": 0.5}, "layer", 2)
    assert again(model, 30) == {"mask_distance": moved}  # the same look, made twice
    assert again(model, 40) == {"mask_distance": 0.0}
    looks = read_looks(file)
    assert [look["step"] for look in looks] == [10, 20, 30, 40]
    assert looks[0]["distance"] is None and looks[1]["distance"] == moved
    assert json.loads(file.read_text().splitlines()[-1])["mask"] == mask_of(model, {"heads": 0.5}, "layer")[0]


def test_the_picture_shows_the_distances_and_the_threshold():
    looks = [{"step": 10 * n, "distance": None if n == 0 else 0.5 / n, "mask": {}} for n in range(5)]
    root = ET.fromstring(distance_picture(looks, 0.1))
    circles = root.findall(".//{*}circle")
    assert len(circles) == 6  # four distances, two ends of the threshold
    heights = [float(circle.get("cy")) for circle in circles[:4]]
    assert heights == sorted(heights)
    assert ET.fromstring(distance_picture(looks[:1], 0.1)) is not None
