from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.data import prepare as preparation
from mengzi_mt.data.examples import select_templates
from mengzi_mt.data.mixture import Mixture, make_pool
from mengzi_mt.data.prepared import open_prepared, plan_tasks
from mengzi_mt.data.stream import OnTheFly, Prepared
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

TASKS = ("lcqmc", "cmrc2018", "kdconv", "cluener2020")
LIMITS = Limits(64, 12)


def streams(source, tokenizer, folder, rows=None, tasks=TASKS):
    pools = [
        make_pool(task, load_rows(task, "train", source, rows).rows, select_templates(task, None)) for task in map(get_task, tasks)
    ]
    mixture = Mixture(pools, {task: 1 / len(tasks) for task in tasks}, seed=3)
    encoder = Encoder(tokenizer)
    plans = plan_tasks(pools, source, tokenizer, LIMITS, folder)
    preparation.prepare(plans, preparation.find_work(plans), encoder)
    return OnTheFly(mixture, encoder, LIMITS), Prepared(mixture, open_prepared(plans))


@pytest.fixture(scope="module")
def both(tokenizer, tmp_path_factory):
    """The two streams of one mixture of bundled samples."""
    return streams(DataSource("sample"), tokenizer, tmp_path_factory.mktemp("prepared"))


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 10**6), count=st.integers(0, 300))
def test_prepared_examples_are_those_made_on_the_fly(both, start, count):
    on_the_fly, prepared = both
    found = prepared.examples(start, start + count)
    assert found == on_the_fly.examples(start, start + count)
    assert len(found) == count


def test_a_thousand_positions_hold_every_kind(both):
    on_the_fly, prepared = both
    examples = prepared.examples(0, 1_000)
    assert examples == on_the_fly.examples(0, 1_000)
    assert {example.task for example in examples if example} == set(TASKS)
    assert None in examples
    assert any(example.cut for example in examples if example)
    assert all(type(number) is int for example in examples[:20] if example for number in example.inputs)


def test_real_rows(data_root, tokenizer, tmp_path):
    source = DataSource("files", data_root, load_data_map(Path("public-extracts")))
    at_hand = [name for name in TASKS if (data_root / name).is_dir()]
    on_the_fly, prepared = streams(source, tokenizer, tmp_path, rows=150, tasks=at_hand)
    assert prepared.examples(0, 2_000) == on_the_fly.examples(0, 2_000)


def test_prepared_examples_of_other_pools_are_refused(both):
    _, prepared = both
    mixture = prepared.mixture
    with pytest.raises(InputError, match="not those of this mixture"):
        Prepared(mixture, list(reversed(prepared.tasks)))
