import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mengzi_mt.compression.pruning_choice import LEAST, cost, kept_units, ratio_for
from mengzi_mt.errors import InputError
from mengzi_mt.models.pruned import Units, remove_units, units_of
from mengzi_mt.models.t5 import parameter_count


def layers(kind, counts):
    return [Units(f"encoder.block.{n}.layer.0.SelfAttention", kind, count, 1, (), "") for n, count in enumerate(counts)]


def scored(units, *lists):
    return {one.name: torch.tensor(found, dtype=torch.float64) for one, found in zip(units, lists, strict=True)}


def whole(units):
    return {one.name: one.count for one in units}


def test_each_layer_loses_its_share():
    units = layers("heads", [4, 4])
    kept, said = kept_units(units, scored(units, [1, 9, 2, 8], [5, 6, 7, 8]), whole(units), 0.5, "layer")
    assert list(kept.values()) == [[1, 3], [2, 3]] and not said


def test_all_layers_together_lose_the_least():
    units = layers("heads", [4, 4])
    kept, said = kept_units(units, scored(units, [1, 9, 2, 8], [5, 6, 7, 8]), whole(units), 0.5, "global")
    assert list(kept.values()) == [[1, 3], [2, 3]] and not said
    kept, said = kept_units(units, scored(units, [10, 9, 20, 8], [5, 6, 7, 3]), whole(units), 0.375, "global")
    assert list(kept.values()) == [[0, 1, 2, 3], [2]] and not said


def test_the_same_heads_of_all_layers_that_share_a_bias():
    units = layers("heads", [3, 3])
    kept, _ = kept_units(units, scored(units, [1, 5, 4], [9, 2, 4]), whole(units), 1 / 3, "alike")
    assert list(kept.values()) == [[0, 2], [0, 2]]  # sums 10, 7, 8
    with pytest.raises(InputError, match="differ in size"):
        unlike = layers("heads", [3, 2])
        kept_units(unlike, scored(unlike, [1, 5, 4], [9, 2]), whole(unlike), 0.5, "alike")


@pytest.mark.parametrize("selection", ["layer", "global", "alike"])
def test_a_layer_never_goes_wholly_and_that_is_said(selection):
    for kind, least in LEAST.items():
        units = layers(kind, [12, 12])
        kept, said = kept_units(units, scored(units, [*range(12)], [*range(50, 62)]), whole(units), 0.99, selection)
        assert [len(one) for one in kept.values()] == [least, least]
        assert said


def test_rounds_count_from_what_there_was_at_first():
    units = layers("neurons", [40, 40])
    before = whole(units)
    first, _ = kept_units(units, scored(units, [*range(40)], [*range(40)]), before, 0.25, "layer")
    rest = layers("neurons", [len(one) for one in first.values()])
    second, _ = kept_units(rest, scored(rest, [*range(30)], [*range(30)]), before, 0.5, "layer")
    assert [len(one) for one in second.values()] == [20, 20]
    both, _ = kept_units(rest, scored(rest, [*range(30)], [*range(30)]), before, 0.5, "global")
    assert sum(map(len, both.values())) == 40


@given(
    counts=st.lists(st.integers(8, 30), min_size=1, max_size=5),
    ratio=st.floats(0, 0.99),
    selection=st.sampled_from(["layer", "global"]),
    seed=st.integers(0, 99),
)
def test_what_stays_is_never_worse_than_what_goes(counts, ratio, selection, seed):
    units = layers("heads", counts)
    generator = torch.Generator().manual_seed(seed)
    scores = {one.name: torch.rand(one.count, generator=generator).double() for one in units}
    kept, said = kept_units(units, scores, whole(units), ratio, selection)
    gone = {name: set(range(len(found))) - set(kept[name]) for name, found in scores.items()}
    if selection == "global":
        total = sum(counts)
        assert said or sum(map(len, gone.values())) == round(ratio * total)
        worst_gone = max((scores[name][unit] for name in gone for unit in gone[name]), default=-1)
        spared = [scores[name][unit] for name, chosen in kept.items() if len(chosen) > 1 for unit in chosen]
        assert all(score >= worst_gone for score in spared)
    for name, found in scores.items():
        assert len(kept[name]) >= 1
        assert min(found[kept[name]]) >= max((found[unit] for unit in gone[name]), default=-1)


@pytest.mark.parametrize("selection", ["layer", "global"])
@pytest.mark.parametrize("share", [0.9, 0.75, 0.6])
def test_a_size_in_parameters_is_reached_and_hardly_missed(tiny_model, selection, share):
    model = tiny_model(vocabulary=200)
    target = int(share * parameter_count(model))
    ratio = ratio_for(model, target, selection)
    units = units_of(model)
    for kind in LEAST:
        some = [one for one in units if one.kind == kind]
        remove_units(model, kept_units(some, {one.name: torch.rand(one.count) for one in some}, whole(some), ratio, selection)[0])
    assert target * 0.9 < parameter_count(model) <= target


def test_the_price_of_a_unit_is_what_the_model_shrinks_by(tiny_model):
    for units in units_of(tiny_model()):
        model = tiny_model()
        before, price = parameter_count(model), cost(model, units)
        remove_units(model, {units.name: list(range(1, units.count))})
        assert before - parameter_count(model) == price


def test_an_impossible_size_is_refused_with_the_least_there_is(tiny_model):
    with pytest.raises(InputError, match=r"At least [0-9,]+ parameters stay"):
        ratio_for(tiny_model(), 1_000, "layer")
