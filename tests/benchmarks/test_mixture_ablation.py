from benchmarks.mixture_ablation import LOSS, MEASURES, NEW_TASKS, VARIANTS, Bench, table
from mengzi_mt.config import load_recipe


def test_what_is_asked_of_all_was_trained_on_by_all_or_by_none(tmp_path):
    bench = Bench(tmp_path, tmp_path, tmp_path, (1, 1), processes=1)
    seen, unseen, new = (bench.asked[measure] for measure in MEASURES[:3])
    assert all(template == bench.trained[task][0] for task, template in seen)
    assert not any(template in bench.trained[task] for task, template in unseen)
    assert {task for task, _ in seen} == {task for task, _ in unseen} and len(unseen) == 2 * len(seen)
    assert {task for task, _ in new} == set(NEW_TASKS) and not set(NEW_TASKS) & set(bench.tasks)


def test_every_variant_is_a_recipe():
    for variant in VARIANTS:
        load_recipe("mixture-micro", list(variant.changes))


def test_differences_are_within_a_seed_and_losses_only_of_equal_validations():
    found = {
        (variant.name, seed): dict.fromkeys(MEASURES, 10.0 * seed + place * (1 + seed))
        for place, variant in enumerate(VARIANTS)
        for seed in (1, 2)
    }
    head, _, baseline, second, *rest = table(found, (1, 2))
    assert head == "| | seen template | unseen templates | new tasks | loss |"
    assert baseline == "| baseline | 15.0 | 15.0 | 15.0 | 15.000 |"
    # differences 2 and 3: 2.5 ± 12.706 · 0.7071 / 1.4142
    assert second.startswith("| random start | 17.5 (+2.5 [−3.9, +8.9]) |")
    for line in rest:
        assert line.endswith("|  |") == ("template" in line)
    assert MEASURES[-1] == LOSS
