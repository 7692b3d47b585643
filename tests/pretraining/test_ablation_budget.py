import random

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.pretraining.ablation_budget import PLANNED, Budget, Speeds, fit, makespan, mean_speeds, parts, runs_of, sentences

SPEEDS = Speeds(5.0, {"baseline": 0.5, "pos": 0.6}, 2.0, {"lcqmc": 20.0, "cluener2020": 30.0}, 3_000.0)


def slow_makespan(durations, processes):
    """By the second: whoever is free takes the next job."""
    busy, waiting, now = [0] * processes, list(durations), 0
    while waiting or any(busy):
        for number in range(processes):
            if not busy[number] and waiting:
                busy[number] = waiting.pop(0)
        busy = [max(0, left - 1) for left in busy]
        now += 1
    return now


def test_the_clock_is_that_of_a_slow_simulation():
    drawn = random.Random(1)
    for _ in range(60):
        durations = [drawn.randint(1, 30) for _ in range(drawn.randint(0, 12))]
        processes = drawn.randint(1, 4)
        assert makespan(durations, processes) == slow_makespan(durations, processes)


def test_the_steps_are_the_most_that_fit():
    variants, seeds = ["baseline", "pos"], [1, 2, 3]
    budget = fit(variants, seeds, SPEEDS, 1.0, 2, 100_000, 100.0)
    room = PLANNED * 3600 - 100
    runs = [SPEEDS.run(variant, steps) for steps in (budget.steps, budget.steps + 1) for variant, _ in runs_of(variants, seeds)]
    assert makespan(runs[:6], 2) <= room < makespan(runs[6:], 2)
    assert budget.seconds == makespan(runs[:6], 2)
    assert fit(variants, seeds, SPEEDS, 1.0, 2, 50, 100.0).steps == 50
    assert fit(variants, seeds, SPEEDS, 1.0, 6, 100_000, 100.0).steps > budget.steps


def test_a_run_is_the_sum_of_its_parts():
    assert SPEEDS.run("pos", 100) == 5 + 60 + 2 + 50
    budget = Budget(100, 1.0, 2, SPEEDS, 36.0, 0.0)
    found = parts(budget, ["baseline", "pos"], [1, 2])
    assert found["pretraining"] == pytest.approx(2 * 110 / 3600)
    assert found["fine-tuning"] == pytest.approx(4 * 50 / 3600)
    assert found["starting and held-out scores"] == pytest.approx(4 * 7 / 3600)
    assert found["measuring"] == pytest.approx(0.02)


def test_too_few_hours_say_how_many_it_takes():
    with pytest.raises(InputError, match=r"0\.01 hours are too few.*alone take 0\.0[0-9].*--hours"):
        fit(["baseline", "pos"], [1], SPEEDS, 0.01, 2, 1_000, 10.0)


def test_whole_seeds_come_first_and_a_budget_survives_its_file():
    assert runs_of(["a", "b"], [1, 2]) == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    budget = fit(["baseline", "pos"], [1], SPEEDS, 1.0, 2, 1_000, 10.0)
    assert Budget.from_json(budget.as_json()) == budget


def test_speeds_are_means_of_the_processes():
    one, other = (
        {"start": n, "step": {"baseline": n}, "held_out": 1.0, "finetuning": {"lcqmc": 2 * n}, "text": 10.0} for n in (1.0, 3.0)
    )
    found = mean_speeds([one, other])
    assert (found.start, found.step, found.finetuning, found.text) == (2.0, {"baseline": 2.0}, {"lcqmc": 4.0}, 10.0)


def test_the_lines_say_tokens_steps_and_hours():
    said = "\n".join(sentences(fit(["baseline", "pos"], [1, 2], SPEEDS, 1.0, 2, 100, 10.0), ["baseline", "pos"], [1, 2]))
    for part in ("4 runs, 2 at a time", "pos 0.600 s (1.20x)", "100 steps, about 300,000 tokens", "of 1;", "fine-tuning"):
        assert part in said
