from pathlib import Path

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.pretraining.ablation_recipe import load_ablation_recipe


def test_the_shipped_recipe_has_the_seven_variants():
    recipe = load_ablation_recipe("ablate-micro")
    assert list(recipe.variants) == ["baseline", "pos", "ner", "sop", "nsp", "weighting", "consistency"]
    assert recipe.baseline == "baseline"
    assert recipe.objectives_of("baseline") == recipe.objectives
    assert recipe.objectives_of("sop").names == ["mlm", "order"]
    assert recipe.objectives_of("weighting").instance.damage == 1
    assert recipe.objectives_of("consistency").instance.most == recipe.objectives.instance.most


def test_a_runs_recipe_differs_in_variant_seed_and_steps_alone():
    recipe = load_ablation_recipe("ablate-micro")
    one = recipe.run_recipe("pos", 2, 700, Path("somewhere"))
    assert (one.seed, one.training.steps, one.optimiser.warmup, one.output) == (2, 700, 70, "somewhere")
    assert one.objectives.pos == 1
    assert one.optimiser.model_copy(update={"warmup": 200}) == recipe.optimiser
    assert one.training.model_copy(update={"steps": recipe.training.steps}) == recipe.training
    assert recipe.run_recipe("pos", 2, 9_000, Path("x")).optimiser.warmup == 200


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("variants.pos={poss: 1}", r"variants\.pos\.poss is no key of `objectives`.*'pos'"),
        ("variants.weighting={instance: {damge: 1}}", r"variants\.weighting\.instance\.damge is no key.*'damage'"),
        ("variants.pos={pos: -1}", r"variants\.pos\.pos: .*greater than or equal to 0"),
        ("variants={Base line: {}, pos: {pos: 1}}", "small letters"),
        ("variants={baseline: {}}", "variants"),
        ("seeds=[1, 1]", "seeds must differ"),
        ("finetuning.tasks=[lcqmc, lcqmc]", "named twice"),
        ("finetuning.stepps=3", "'steps'"),
    ],
)
def test_bad_recipes_name_the_key(override, says):
    with pytest.raises(InputError, match=says):
        load_ablation_recipe("ablate-micro", [override])
