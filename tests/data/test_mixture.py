from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.config import MixtureSettings
from mengzi_mt.data.mixture import BLOCK, Mixture, make_pool, mixing_rates
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


def key(draw):
    return draw.task, draw.row, draw.template.name


SHARED = mixture()
RATES = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(lambda raw: tuple(rate / sum(raw) for rate in raw))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_draw_is_a_pure_function_of_the_position(positions):
    shared = {position: key(SHARED.draw(position)) for position in positions}
    assert {position: key(mixture().draw(position)) for position in reversed(positions)} == shared


def test_another_seed_draws_otherwise():
    assert [key(mixture(seed=2).draw(p)) for p in range(50)] != [key(SHARED.draw(p)) for p in range(50)]


@settings(max_examples=25, deadline=None)
@given(RATES, st.integers(0, 10**6))
def test_quota_of_every_block_is_the_rate_within_one(rates, block):
    mixed = mixture(rates=rates)
    tasks, _ = mixed._deal_block(block)
    counts = Counter(tasks.tolist())
    assert sum(counts.values()) == BLOCK
    for task, rate in enumerate(rates):
        assert abs(counts[task] - rate * BLOCK) <= 2  # one of each end's rounding
    for task, before in enumerate(mixed.draws_before(block * BLOCK)):
        assert abs(before - rates[task] * block * BLOCK) <= 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=3), st.integers(0, 99))
def test_an_epoch_covers_every_row_once(sizes, seed):
    mixed = mixture(tuple(sizes), (1 / len(sizes),) * len(sizes), seed)
    drawn = [[] for _ in sizes]
    for block in range(2):
        for task, rank in sorted(zip(*(array.tolist() for array in mixed._deal_block(block)), strict=True)):
            epoch, place = divmod(rank, sizes[task])
            drawn[task].append(int(mixed._order(task, epoch)[place]))
    for task, size in enumerate(sizes):
        for start in range(0, len(drawn[task]) - size + 1, size):
            assert sorted(drawn[task][start : start + size]) == list(range(size))


def test_the_draws_of_a_block_are_its_ranks():
    tasks, ranks = SHARED._deal_block(1)
    drawn = [SHARED.draw(BLOCK + offset) for offset in range(BLOCK)]
    assert [draw.task for draw in drawn] == tasks.tolist()
    sizes = [len(p.rows) for p in SHARED.pools]
    places = [divmod(rank, sizes[task]) for task, rank in zip(tasks.tolist(), ranks.tolist(), strict=True)]
    assert all(d.row == SHARED._order(d.task, epoch)[place] for d, (epoch, place) in zip(drawn, places, strict=True))


def test_templates_rotate_over_epochs():
    mixed = mixture((5,), (1.0,))
    seen: dict[int, list[str]] = {}
    ranks = mixed._deal_block(0)[1].tolist()
    for _, position in sorted((rank, position) for position, rank in enumerate(ranks) if rank < 5 * 3):
        draw = mixed.draw(position)
        seen.setdefault(draw.row, []).append(draw.template.name)
    assert set(seen) == set(range(5))
    assert all(sorted(names) == ["t0", "t1", "t2"] for names in seen.values())


def test_counts_and_examples_replay_the_draws():
    examples = list(SHARED.examples(10, 60))
    counts = SHARED.counts(10, 60)
    assert Counter((e.task, e.template) for e in examples) == {(t, n): c for t, row in counts.items() for n, c in row.items()}


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"strategy": "proportional"}, (0.1, 0.9)),
        ({"strategy": "proportional", "cap": 300}, (0.25, 0.75)),
        ({"strategy": "temperature", "temperature": 2.0}, (0.25, 0.75)),
        ({"strategy": "equal"}, (0.5, 0.5)),
        ({"strategy": "explicit", "rates": {"a": 1, "b": 4}}, (0.2, 0.8)),
    ],
)
def test_mixing_rates(options, rates):
    settings = MixtureSettings(tasks=("a", "b"), **options)
    assert tuple(mixing_rates({"a": 100, "b": 900}, settings).values()) == pytest.approx(rates)


def test_pool_leaves_out_rows_that_no_template_can_use():
    rows = [Row(f"r{i}", {"x": i}) for i in range(4)]
    made = make_pool(get_task("lcqmc"), rows, templates(2, skip_if="x > 1"))
    assert [row.row_id for row in made.rows] == ["r0", "r1"]
    assert len(make_pool(get_task("lcqmc"), rows, [*templates(1), *templates(1, skip_if="true")]).rows) == 4


@pytest.mark.parametrize(
    ("rows", "used"), [([], templates(1)), ([Row("r", {"x": 1})], []), ([Row("r", {"x": 1})], templates(1, skip_if="true"))]
)
def test_empty_pool_is_an_input_error(rows, used):
    with pytest.raises(InputError, match="'lcqmc' yields no training example"):
        make_pool(get_task("lcqmc"), rows, used)
