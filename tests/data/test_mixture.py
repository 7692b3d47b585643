from collections import Counter

import numpy as np
import pytest

from mengzi_mt.config import MixtureSettings
from mengzi_mt.data.mixture import Mixture, make_pool, mixing_rates
from mengzi_mt.data.sampling import Stage
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.template import Template, TemplateMetadata
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import Row

TASKS = ("lcqmc", "cmnli", "finre")


def templates(count, **extra):
    return [Template(f"{i}", f"t{i}", "{{ x }}|||{{ x }}", metadata=TemplateMetadata(extra=extra)) for i in range(count)]


def pool(name, rows, count=3):
    return make_pool(get_task(name), [Row(f"{name}:{i}", {"x": str(i)}) for i in range(rows)], templates(count))


def mixture(sizes=(7, 50, 300), rates=(0.2, 0.3, 0.5), seed=1):
    names = TASKS[: len(sizes)]
    return Mixture([pool(name, size) for name, size in zip(names, sizes, strict=True)], dict(zip(names, rates, strict=True)), seed)


SHARED = mixture()


def test_examples_are_the_draws_rendered():
    draws = SHARED.draws(range(100, 200))
    examples = list(SHARED.examples(100, 200))
    for number, row, template, example in zip(*(array.tolist() for array in draws), examples, strict=True):
        assert (example.task, example.row_id, example.template) == (TASKS[number], f"{TASKS[number]}:{row}", f"t{template}")
        assert example.inputs == str(row)
    assert SHARED.example(150) == examples[50]
    assert list(SHARED.examples(101, 200, 3)) == examples[1::3]


def test_choices_vary_for_their_share_of_the_examples_and_are_a_function_of_the_position():
    listed = Template(
        "1", "t", "{{ x }} {{ answer_choices | join('/') }}|||{{ answer_choices[label] }}", answer_choices="a|||b|||c"
    )
    open_one = Template("2", "o", "{{ x }}|||{{ answer_choices[label] }}", answer_choices="a|||b|||c")
    rows = [Row(f"{i}", {"x": str(i), "label": i % 3}) for i in range(1_000)]
    pools = [make_pool(get_task("cmnli"), rows, [listed, open_one])]
    fixed, varied, other = (Mixture(pools, {"cmnli": 1.0}, seed, share) for seed, share in ((1, 0.0), (1, 0.5), (2, 0.5)))
    before, after = list(fixed.examples(0, 2_000)), list(varied.examples(0, 2_000))
    assert [(e.row_id, e.template, e.targets) for e in before] == [(e.row_id, e.template, e.targets) for e in after]
    assert all(e.inputs.endswith("a/b/c") == (e.template == "t") for e in before)
    assert all(a == b for a, b in zip(before, after, strict=True) if a.template == "o")
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert changed == pytest.approx(0.5 * 1_000 * (1 - 0.415 / 6), rel=0.1)  # of three choices all, as they stand, at times
    assert list(varied.examples(500, 600)) == after[500:600]
    assert [e.inputs for e in other.examples(0, 2_000)] != [e.inputs for e in after]


def test_counts_are_those_of_the_examples():
    examples = list(SHARED.examples(10, 6_000))
    counts = SHARED.counts(10, 6_000)
    assert Counter((e.task, e.template) for e in examples) == {(t, n): c for t, row in counts.items() for n, c in row.items()}
    assert SHARED.counts(5, 5) == {}


def test_rates_of_stages_are_those_of_the_last():
    pools = SHARED.pools
    staged = Mixture(pools, [Stage({"lcqmc": 1.0}), Stage({"cmnli": 0.25, "finre": 0.75}, 40)], 1)
    assert staged.rates == [0.0, 0.25, 0.75]
    assert {example.task for example in staged.examples(0, 40)} == {"lcqmc"}
    assert set(staged.counts(40, 5_000)) == {"cmnli", "finre"}


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"strategy": "proportional"}, (0.1, 0.9)),
        ({"strategy": "proportional", "cap": 300}, (0.25, 0.75)),
        ({"strategy": "proportional", "cap_per": "template"}, (0.4, 0.6)),  # 6 x 100 : 1 x 900
        ({"strategy": "proportional", "cap_per": "template", "cap": 300}, (2 / 3, 1 / 3)),  # 6 x 100 : 1 x 300
        ({"strategy": "proportional", "cap_per": "template", "cap": 90}, (0.5, 0.5)),  # 6 x 15 : 1 x 90
        ({"strategy": "temperature", "temperature": 2.0}, (0.25, 0.75)),
        ({"strategy": "temperature", "temperature": 1e6}, (0.5, 0.5)),
        ({"strategy": "equal"}, (0.5, 0.5)),
        ({"strategy": "explicit", "rates": {"a": 1, "b": 4}}, (0.2, 0.8)),
    ],
)
def test_mixing_rates(options, rates):
    settings = MixtureSettings(tasks=("a", "b"), **options)
    assert tuple(mixing_rates({"a": 100, "b": 900}, settings, {"a": 6, "b": 1}).values()) == pytest.approx(rates, rel=1e-5)


def test_rates_are_those_of_the_settings_tasks():
    assert mixing_rates({"a": 100, "b": 900}, MixtureSettings(tasks=("b",))) == {"b": 1.0}


@pytest.mark.parametrize(
    "options", [{"strategy": "temperature", "temperature": 1e-3}, {"strategy": "explicit", "rates": {"a": 1e-12, "b": 1}}]
)
def test_a_task_that_would_never_be_drawn_is_refused(options):
    with pytest.raises(InputError, match=r"'a' has the rate .* never be drawn"):
        mixing_rates({"a": 100, "b": 900}, MixtureSettings(tasks=("a", "b"), **options))


def test_pool_leaves_out_rows_that_no_template_can_use():
    rows = [Row(f"r{i}", {"x": i}) for i in range(4)]
    made = make_pool(get_task("lcqmc"), rows, templates(2, skip_if="x > 1"))
    assert [row.row_id for row in made.rows] == ["r0", "r1"]
    assert len(make_pool(get_task("lcqmc"), rows, [*templates(1), *templates(1, skip_if="true")]).rows) == 4


def test_the_sampler_knows_which_row_can_use_which_template():
    rows = [Row(f"r{i}", {"x": i}) for i in range(4)]
    some = make_pool(get_task("lcqmc"), rows, [*templates(1), *templates(1, skip_if="x > 1")])
    assert np.array_equal(some.source().usable, [[True, True], [True, True], [True, False], [True, False]])
    assert pool("lcqmc", 3).source().usable is None


@pytest.mark.parametrize(
    ("rows", "used"), [([], templates(1)), ([Row("r", {"x": 1})], []), ([Row("r", {"x": 1})], templates(1, skip_if="true"))]
)
def test_empty_pool_is_an_input_error(rows, used):
    with pytest.raises(InputError, match="'lcqmc' yields no training example"):
        make_pool(get_task("lcqmc"), rows, used)
