import statistics

import numpy as np
import pytest

from mengzi_mt.compression.export_check import check_examples
from mengzi_mt.compression.measuring import Times, load_way, measure_speed, timed_examples
from mengzi_mt.compression.measuring_memory import peak_memory
from mengzi_mt.compression.pipeline_measure import frontiers, machine, verdict
from mengzi_mt.compression.pipeline_recipe import MeasureSettings
from mengzi_mt.evaluation.suites import load_suite
from mengzi_mt.tasks.rows import DataSource

SETTINGS = MeasureSettings(suites=[{"suite": "zeroclue"}], rounds=2, rows=4, batch=3, alone=2, new_tokens=4)


def test_transformers_alone_and_this_package_give_the_same(teacher_dir):
    ranked, asked = check_examples()
    plain, own = (load_way(str(teacher_dir), way, SETTINGS) for way in (True, False))
    for one, other in zip(plain.score(ranked), own.score(ranked), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert plain.generate(asked) == own.generate(asked)


def test_figures_are_medians_of_paired_ratios():
    base = Times([0.4, 0.2, 0.3], [0.010, 0.030, 0.020, 0.040], [0.2, 0.2, 0.4], ["a", "b", [0.1, 0.9]])
    ours = Times([0.1, 0.1, 0.1], [0.005, 0.010, 0.010, 0.010], [0.1, 0.05, 0.1], ["a", "c", [0.3, 0.4]])
    found = ours.summary(base)
    assert found["per_second"] == pytest.approx(10)
    assert found["times_throughput"] == pytest.approx(3)
    assert found["times_latency"] == pytest.approx(statistics.median([2, 3, 2, 4]))
    assert found["times_processor"] == pytest.approx(4)
    assert found["p50_ms"] == pytest.approx(10) and found["p95_ms"] == pytest.approx(1000 * np.quantile(ours.alone, 0.95))
    assert found["same_answers"] == pytest.approx(2 / 3)
    assert base.summary(base)["times_throughput"] == base.summary(base)["times_latency"] == 1


class Recorder:
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def score(self, examples):
        self.calls.append((self.name, "score", len(examples)))
        return [[0.0, -1.0] for _ in examples]

    def generate(self, examples):
        self.calls.append((self.name, "generate", len(examples)))
        return ["text" for _ in examples]


def test_forms_take_turns_on_the_same_rows():
    calls, said = [], []
    ways = {name: Recorder(name, calls) for name in ("base", "other")}
    examples = timed_examples([load_suite("zeroclue")], ["eprstmt", "tnews"], DataSource("sample"), 8)
    found = measure_speed(ways, "base", examples, SETTINGS, said.append)
    warm, calls = calls[:4], calls[4:]
    assert {size for _, _, size in warm} == {2}
    each = [("score", 3), ("score", 1), ("score", 1), ("score", 1), ("generate", 3), *[("generate", 1)] * 3]
    whole = [(name, kind, size) for name in ("base", "other", "other", "base") for kind, size in each]
    assert calls == whole
    assert len(said) == 2
    assert found["other"]["score"]["inputs"] == 8 and found["other"]["generate"]["alone"] == 4
    open_only = [one._replace(choices=None) for one in examples]
    assert measure_speed(ways, "base", open_only, SETTINGS, said.append)["base"]["score"] is None


def test_timed_rows_are_of_all_tasks_and_without_hundreds_of_choices():
    suite = load_suite("zeroclue")
    examples = timed_examples([suite], list(suite.tasks), DataSource("sample"), 40)
    tasks = {one.task for one in examples}
    assert {"eprstmt", "ocnli", "chid"} <= tasks
    assert max(len(one.choices or ()) for one in examples) <= 20
    assert timed_examples([suite], list(suite.tasks), DataSource("sample"), 40) == examples


def test_a_fresh_process_says_how_far_its_memory_rises(teacher_dir):
    ranked, asked = check_examples()
    found = peak_memory(str(teacher_dir), False, [*ranked, *asked], SETTINGS)
    weights = (teacher_dir / "model.safetensors").stat().st_size
    assert weights < found["peak"] < 500e6
    assert found["before"] > 50e6


def test_the_frontier_is_what_nothing_beats():
    generator = np.random.default_rng(0)
    drawn = generator.integers(1, 9, (30, 3)).tolist()
    entries = [{"suites": [{"kept": kept / 9}], "generate": {"p50_ms": float(cost)}, "bytes": size} for kept, cost, size in drawn]
    found = frontiers(entries)
    for at, one in enumerate(entries):
        for key, cost in (("latency", lambda form: form["generate"]["p50_ms"]), ("bytes", lambda form: form["bytes"])):
            own = (one["suites"][0]["kept"], -cost(one))
            others = [(other["suites"][0]["kept"], -cost(other)) for place, other in enumerate(entries) if place != at]
            beaten = any(o != own and o[0] >= own[0] and o[1] >= own[1] for o in others)
            assert found[at][key] == (not beaten)
    nothing = frontiers([{"suites": [{"kept": None}], "generate": {"p50_ms": 1.0}, "bytes": 1}])
    assert nothing == [{"latency": False, "bytes": False}]


def test_an_interval_with_zero_shows_nothing():
    assert [verdict(one) for one in (None, [-0.2, 0.1], [0.0, 0.3], [-0.3, -0.1], [0.1, 0.2])] == [
        "reference", "no difference shown", "no difference shown", "lower", "higher",
    ]  # fmt: skip


def test_a_load_above_the_cores_is_busy():
    cores = machine(1, None, None)["cores"]
    assert not machine(1, None, None)["busy"] and not machine(1, 0.5, float(cores))["busy"]
    assert machine(1, 0.5, cores + 0.5)["busy"]
