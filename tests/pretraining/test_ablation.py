import json
import os

import pytest
from typer.testing import CliRunner

from mengzi_mt.cli.main import app
from mengzi_mt.errors import InputError
from mengzi_mt.pretraining import ablation, ablation_job, encoder_loop
from mengzi_mt.pretraining.ablation import make_plan, run_plan
from mengzi_mt.pretraining.ablation_budget import Budget, Speeds
from mengzi_mt.pretraining.ablation_job import main, make_run, measure
from mengzi_mt.pretraining.ablation_plan import read_plan
from mengzi_mt.pretraining.ablation_recipe import AblationRecipe
from mengzi_mt.pretraining.ablation_results import collect, write_results
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.run_status import METRICS, read_metrics

SAMPLE = DataSource("sample")


@pytest.fixture
def make_ablation(make_recipe, tmp_path):
    """``make_ablation(variants={…})``: two variants and two seeds of the tiny encoder; four steps, three of fine-tuning."""

    def make(**given):
        raw = make_recipe(pos=0, ner=0, order="none", held_out=0.2, steps=50).model_dump()
        raw |= {
            "name": "tiny", "output": str(tmp_path / "ablation"), "seeds": (1, 2),
            "variants": {"baseline": {}, "sop": {"order": "sop"}},
            "finetuning": {"tasks": ["lcqmc"], "rows": 24, "validation_rows": 12, "steps": 3, "batch": 8},
        }  # fmt: skip
        return AblationRecipe.model_validate(raw | given)

    return make


@pytest.fixture
def planned(monkeypatch):
    """Budgets of four steps without measuring."""

    def budget(recipe, source, data_map, hours, processes):
        speeds = Speeds(1.0, dict.fromkeys(recipe.variants, 0.1), 1.0, dict.fromkeys(recipe.finetuning.tasks, 1.0), 100.0)
        return Budget(4, hours, processes, speeds, 1.0, 10.0)

    monkeypatch.setattr(ablation, "measured_budget", budget)


def plan_of(recipe, source=SAMPLE):
    plan, decided = make_plan(recipe, source, None, 3.0, 2, lambda text: None)
    if not decided:
        plan.write()
    return plan


def test_all_runs_are_made_scored_and_compared(make_ablation, planned):
    plan = plan_of(make_ablation())
    for variant, seed in plan.runs:
        make_run(plan, variant, seed, SAMPLE)
    results = collect(plan)
    assert [(run["variant"], run["seed"]) for run in results["runs"]] == [("baseline", 1), ("sop", 1), ("baseline", 2), ("sop", 2)]
    first, second = results["variants"]
    assert first["text_tokens"] == second["text_tokens"] > 0
    assert second["tokens"] > first["tokens"]  # a separator more in a row of two segments
    assert {run["examples"] for run in results["runs"]} == {4 * 6}
    held_out = {run["held_out"]["predictions"] for run in results["runs"]}
    assert len(held_out) == 1  # all are scored on the same masks
    values = {
        name: [run["tasks"]["lcqmc"]["score"] for run in results["runs"] if run["variant"] == name] for name in ("baseline", "sop")
    }
    expected = sum(a - b for a, b in zip(values["sop"], values["baseline"], strict=True)) / 2
    assert second["measures"]["lcqmc"]["difference"] == pytest.approx(expected)
    assert write_results(plan).is_file()
    assert {path.name for path in plan.folder.iterdir()} >= {
        "results.json",
        "report.html",
        "ablation.md",
        "ablation.svg",
        "plan.json",
    }


def test_an_interrupted_run_goes_on_and_scores_are_not_made_twice(make_ablation, planned, monkeypatch):
    plan = plan_of(make_ablation())
    real, calls = encoder_loop.accumulate, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(encoder_loop, "accumulate", killed)
    with pytest.raises(KeyboardInterrupt):
        make_run(plan, "sop", 1, SAMPLE)
    plan = plan_of(make_ablation())
    make_run(plan, "sop", 1, SAMPLE)
    steps = len(calls)
    assert steps == 3 + 1 + 2  # the checkpoint after step 2 was there
    metrics = read_metrics(plan.run_recipe("sop", 1).run_dir / METRICS)
    assert [record["step"] for record in metrics] == [1, 2, 3, 4]
    monkeypatch.setattr(ablation_job, "finetune", lambda *_: pytest.fail("was scored already"))
    make_run(plan, "sop", 1, SAMPLE)
    assert len(calls) == steps


def test_a_budget_is_kept(make_ablation, planned):
    plan_of(make_ablation())
    plan, decided = make_plan(make_ablation(), SAMPLE, None, 99.0, 4, lambda text: None)
    assert decided
    assert (plan.budget.hours, plan.budget.processes, plan.budget.steps) == (3.0, 2, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variants": {"baseline": {}, "sop": {"order": "nsp"}}}, r"variants\.sop\.order: 'sop' there, 'nsp' here"),
        ({"seeds": (1, 3)}, "seeds"),
        ({"finetuning": {"tasks": ["lcqmc"], "steps": 4}}, r"finetuning\.steps: 3 there, 4 here"),
    ],
)
def test_results_of_another_recipe_are_refused(make_ablation, planned, change, says):
    plan_of(make_ablation())
    with pytest.raises(InputError, match=r"results of another ablation.*" + says):
        plan_of(make_ablation(**change))


def test_a_run_of_another_recipe_in_its_place_is_refused(make_ablation, planned):
    plan = plan_of(make_ablation())
    make_run(plan, "sop", 1, SAMPLE)
    folder = plan.folder / "runs"
    (folder / "sop-1").rename(folder / "baseline-1")
    with pytest.raises(InputError, match=r"holds another run.*objectives\.order"):
        make_run(plan, "baseline", 1, SAMPLE)


def test_bad_inputs_are_refused_before_anything_is_measured(make_ablation, text_corpus, monkeypatch):
    monkeypatch.setattr(ablation, "measured_budget", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match="not tagged"):
        plan_of(make_ablation(corpus=str(text_corpus)))
    for tasks, says in ((["lcqmcc"], "no task 'lcqmcc'"), (["advertisegen"], "neither labels"), (["tnews"], "zero-shot task")):
        with pytest.raises(InputError, match=says):
            plan_of(make_ablation(finetuning={"tasks": tasks}))
    with pytest.raises(InputError, match="data folder"):
        plan_of(make_ablation(), DataSource("files"))


def test_a_damaged_plan_or_score_is_named(make_ablation, planned):
    plan = plan_of(make_ablation())
    (plan.folder / "plan.json").write_text('{"schema": "mengzi-mt/ablation/1"}')
    with pytest.raises(InputError, match=r"plan cannot be read.*plan\.json"):
        read_plan(plan.folder)
    with pytest.raises(InputError, match="score cannot be read"):
        collect(plan)


def test_speeds_are_measured_for_every_variant_and_task(make_ablation):
    found = measure(make_ablation(), SAMPLE)
    assert found["step"].keys() == {"baseline", "sop"}
    assert found["finetuning"].keys() == {"lcqmc"}
    assert all(value > 0 for value in (found["start"], found["held_out"], found["text"], *found["step"].values()))


@pytest.fixture
def given(make_ablation, tmp_path):
    """The command's arguments for one seed and at most four steps, and where it writes."""
    recipe = make_ablation(seeds=(1,), training={**make_ablation().training.model_dump(), "steps": 4})
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    return ["pretrain", "ablate", str(path), "--data", "sample", "--hours", "1"], recipe.run_dir


def test_a_dry_run_prints_the_budget_and_writes_nothing(given, planned):
    arguments, folder = given
    result = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "2 runs, 2 at a time" in result.output
    assert not folder.exists()


@pytest.mark.slow
def test_the_command_from_measuring_to_the_report(given):
    arguments, folder = given
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (folder / "report.html").is_file()
    again = CliRunner().invoke(app, arguments)
    assert "2 of 2 runs are finished already" in again.output


def test_a_job_is_told_by_its_argument(make_ablation, planned, monkeypatch):
    plan = plan_of(make_ablation())
    made = []
    monkeypatch.setattr(
        ablation_job, "make_run", lambda plan, variant, seed, source: made.append((plan.folder, variant, seed, source))
    )
    monkeypatch.setattr(ablation_job, "_end_with_the_parent", lambda: None)
    monkeypatch.setattr(
        ablation, "run_side_by_side", lambda jobs, processes, show: [main(json.dumps(job.argument)) for job in jobs]
    )
    run_plan(plan, SAMPLE, None, 2, lambda text: None)
    assert made == [(plan.folder, variant, seed, SAMPLE) for variant, seed in plan.runs]
    assert os.environ.get("OMP_NUM_THREADS") == "1"
