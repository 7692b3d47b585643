import json
import shutil

import pytest
import yaml

from mengzi_mt.compression import pipeline, pipeline_measure
from mengzi_mt.compression.pipeline import run_pipeline
from mengzi_mt.compression.pipeline_recipe import load_pipeline_recipe
from mengzi_mt.compression.pipeline_results import check_results
from mengzi_mt.compression.pipeline_stages import plan
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import load_model, parameter_count
from mengzi_mt.tasks.rows import DataSource
from tests.compression.conftest import SECTIONS

SAMPLE = DataSource("sample")
NAMES = ["distil", "prune", "quantise", "export-torch-bfloat16", "teacher-torch-int8", "teacher-torch-bfloat16", "measure"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory, teacher_dir):
    """A pipeline of two steps a stage on the bundled samples."""
    folder = tmp_path_factory.mktemp("pipeline")

    def written(name, raw):
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, **raw}, allow_unicode=True), encoding="utf-8")
        return str(path)

    sections = {key: value for key, value in SECTIONS.items() if key != "data"}
    sections["training"] = sections["training"] | {"steps": 2, "checkpoint_every": 1}
    stages = {
        "distil": {"recipe": written("distil-tiny", {
            "teacher": {"model": "another"}, "student": {"layers": "even"}, "losses": {"hard": 0.5, "logits": {}}, **sections,
        })},
        "prune": {"recipe": written("prune-tiny", {
            "model": {"init": "another"}, "units": {"neurons": 0.5, "selection": "alike"}, "score_steps": 1, **sections,
        })},
    }  # fmt: skip
    suites = [
        {"name": "first", "title": {"zh": "一", "en": "one"}, "tasks": ["lcqmc", "cmrc2018"], "split": "validation"},
        {"name": "second", "title": {"zh": "二", "en": "two"}, "tasks": ["eprstmt"], "split": "validation"},
    ]
    return written("tiny", {
        "output": str(folder / "run"), "teacher": str(teacher_dir), "data": {"source": "sample"}, **stages, "quantise": {},
        "export": {"forms": ["torch bfloat16"]},
        "measure": {
            "suites": [{"suite": written(suite["name"], suite), "limit": 6, "max_templates": 1} for suite in suites],
            "rounds": 2, "rows": 4, "batch": 2, "alone": 2, "new_tokens": 3,
        },
    })  # fmt: skip


@pytest.fixture(scope="module")
def without_processes():
    """No process of its own for memory, which takes seconds to start; tests/compression/test_measuring.py starts one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_measure, "peak_memory", lambda *about: {"peak": 1_000_000, "before": 2_000_000})
        yield


@pytest.fixture(scope="module")
def finished(recipe_file, without_processes):
    """The recipe, run to its end with an interruption before every stage, and the stages that were run, in order."""
    recipe, ran = load_pipeline_recipe(recipe_file), []
    do = pipeline._run

    def once(stage, *rest):
        if ran and ran[-1] != "go":
            ran.append("go")
            raise KeyboardInterrupt
        do(stage, *rest)
        ran[-1:] = [stage.name]
        done.append(stage.name)

    done, turns = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_run", once)
        while turns < 20:
            turns += 1
            try:
                run_pipeline(recipe, SAMPLE)
                break
            except KeyboardInterrupt:
                continue
    return recipe, done, turns


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished[0].run_dir / "results.json").read_text(encoding="utf-8"))


def test_every_stage_runs_once_though_each_was_interrupted_before_it_began(finished):
    recipe, done, turns = finished
    assert done == NAMES and turns == len(NAMES)
    assert [stage.status() for stage in plan(recipe)] == ["finished"] * len(NAMES)


def test_results_follow_the_schema_and_say_what_is_on_the_disk(finished, results, teacher_dir):
    recipe, _, _ = finished
    check_results(results)
    forms = {form["name"]: form for form in results["forms"]}
    assert list(forms) == [
        "transformers float32", "teacher", "teacher-torch-int8", "teacher-torch-bfloat16", "distil", "prune", "quantise",
        "export-torch-bfloat16",
    ]  # fmt: skip
    assert [form["of"] for form in forms.values()] == ["teacher"] * 4 + ["compressed"] * 4
    sizes = {name: forms[name]["parameters"] for name in ("teacher", "distil", "prune", "quantise")}
    assert sizes["teacher"] == parameter_count(load_model(teacher_dir)) > sizes["distil"] > sizes["prune"] == sizes["quantise"]
    assert sizes["prune"] == parameter_count(load_model(recipe.run_dir / forms["prune"]["place"]))
    base = forms["transformers float32"]
    assert base["bytes"] == 4 * sizes["teacher"] and base["generate"]["times_throughput"] == 1
    for name, form in forms.items():
        assert form["smaller"] == base["bytes"] / form["bytes"]
        if name.startswith(("distil", "prune", "export")):
            place = recipe.run_dir / form["place"]
            assert form["bytes"] == (place / "model.safetensors").stat().st_size
            assert form["folder_bytes"] == sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert forms["teacher-torch-bfloat16"]["bytes"] < 0.6 * base["bytes"]
    assert forms["teacher-torch-int8"]["bytes"] < 0.31 * base["bytes"]


def test_scores_are_evaluations_own_and_kept_is_their_ratio(finished, results):
    recipe, _, _ = finished
    assert [suite["kind"] for suite in results["suites"]] == ["held-in", "zero-shot"]
    for at, suite in enumerate(("first", "second")):
        reference = results["forms"][1]["suites"][at]
        assert reference["difference"] is None and reference["verdict"] == "reference" and reference["kept"] == 1
        assert results["forms"][0]["suites"][at] == reference
        for form in results["forms"][1:]:
            own = json.loads((recipe.run_dir / "scores" / form["name"] / suite / "results.json").read_text(encoding="utf-8"))
            shown = form["suites"][at]
            assert shown["score"] == pytest.approx(own["suite_score"])
            assert [task["rows"] for task in shown["tasks"]] == [6] * len(shown["tasks"])
            if form["name"] != "teacher":
                assert shown["difference"] == pytest.approx(shown["score"] - reference["score"])
                assert shown["kept"] == (pytest.approx(shown["score"] / reference["score"]) if reference["score"] else None)
                low, high = shown["difference_interval"]
                assert shown["verdict"] == ("lower" if high < 0 else "higher" if low > 0 else "no difference shown")


def test_a_float_copy_of_the_teacher_answers_as_transformers_does(results):
    """A bfloat16 file of weights that were float32 differs a little; the teacher itself not at all."""
    teacher = results["forms"][1]
    assert teacher["generate"]["same_answers"] == teacher["score"]["same_answers"] == 1
    assert (teacher["generate"]["inputs"], teacher["generate"]["alone"], teacher["generate"]["rounds"]) == (8, 4, 2)


def test_costs_are_those_of_the_stages(finished, results):
    stages = {stage["stage"]: stage for stage in results["stages"]}
    assert list(stages) == NAMES
    assert all(stage["seconds"] > 0 for stage in stages.values())
    assert stages["prune"]["source"] == "distil" and stages["teacher-torch-int8"]["source"] == "teacher"
    told = json.loads((finished[0].run_dir / stages["distil"]["folder"] / "stage.json").read_text(encoding="utf-8"))
    assert told["seconds"] == stages["distil"]["seconds"] and told["finished"]


def test_a_finished_pipeline_does_nothing_but_write_its_report(finished, monkeypatch, capsys):
    recipe, _, _ = finished
    report = recipe.run_dir / "report.html"
    before = report.read_text(encoding="utf-8")
    report.unlink()
    monkeypatch.setattr(pipeline, "_run", lambda *about: pytest.fail("a finished stage was run"))
    assert run_pipeline(recipe, SAMPLE) == report
    assert report.read_text(encoding="utf-8") == before
    assert capsys.readouterr().err.count("finished before") == len(NAMES)


def test_a_changed_recipe_is_redone_from_the_first_changed_stage_and_says_so(finished, recipe_file):
    changed = plan(load_pipeline_recipe(recipe_file, ["prune.overrides=[units.neurons=0.25]"]))
    status = {stage.name: stage.status() for stage in changed}
    assert status["distil"] == status["teacher-torch-int8"] == "finished"
    assert status["prune"] == status["quantise"] == status["export-torch-bfloat16"] == status["measure"] == "to do"
    told = {stage.name: stage.changes() for stage in changed}
    assert "units.neurons: 0.5 there, 0.25 here" in told["prune"] and "stays" in told["prune"]
    assert "its input is another" in told["quantise"]
    same = plan(load_pipeline_recipe(recipe_file, ["distil.overrides=[training.log_every=2, tracking.progress=plain]"]))
    assert [stage.status() for stage in same] == ["finished"] * len(NAMES)


def test_a_stage_that_is_cut_off_goes_on_in_its_folder(finished, tmp_path, monkeypatch):
    recipe = finished[0].model_copy(update={"output": str(tmp_path / "run")})
    shutil.copytree(finished[0].run_dir, tmp_path / "run")
    stage = next(stage for stage in plan(recipe) if stage.name == "export-torch-bfloat16")
    (stage.result / "model.safetensors").write_bytes(b"cut off")
    assert stage.status() == "interrupted"
    ran, do = [], pipeline._run
    monkeypatch.setattr(pipeline, "_run", lambda stage, *rest: (ran.append(stage.name), do(stage, *rest)))
    before = stage.told()["seconds"]
    run_pipeline(recipe, SAMPLE)
    assert ran == ["export-torch-bfloat16"] and stage.told()["seconds"] > before


def test_stages_may_be_left_out(recipe_file, tmp_path, without_processes):
    recipe = load_pipeline_recipe(recipe_file, ["distil=null", "prune=null", "quantise=null", f"output={tmp_path / 'run'}"])
    assert [(stage.name, stage.source) for stage in plan(recipe)] == [("export-torch-bfloat16", "teacher"), ("measure", "teacher")]
    run_pipeline(recipe, SAMPLE)
    forms = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))["forms"]
    assert [(form["name"], form["of"]) for form in forms][2:] == [("export-torch-bfloat16", "teacher")]


def test_fine_tuning_with_the_rounding_stands_before_every_form(recipe_file):
    tuned = load_pipeline_recipe(recipe_file, ["quantise.fine_tune={recipe: finetune}"])
    sources = {stage.name: stage.source for stage in plan(tuned)}
    assert sources["fine-tune"] == "prune"
    assert sources["quantise"] == sources["export-torch-bfloat16"] == "fine-tune"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill={recipe: x}"], r"Unknown key 'distill'.*'distil'"),
        (["distil=null", "prune=null", "quantise=null", "export=null"], "there is nothing to do"),
        (["prune.recipe=no-such-recipe"], "no such recipe"),
        (["prune.overrides=[units.nuerons=0.1]"], "Unknown key 'nuerons'"),
        (["distil.recipe=distil-encoder-l6"], "distils an encoder"),
        (["export.forms=[ctranslate2 int3]"], "no precision 'int3'"),
        (["export.forms=[torch int8, torch int8]"], "named twice"),
        (["export.forms=[onnx int8]", "prune.overrides=['units={heads: 0.5}']"], "which onnx-int8 does not know"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused_before_it_runs(recipe_file, overrides, message):
    with pytest.raises(InputError, match=message):
        load_pipeline_recipe(recipe_file, overrides)


def test_what_a_pipeline_needs_is_looked_for_first(recipe_file, tmp_path, monkeypatch):
    output = f"output={tmp_path / 'run'}"
    with pytest.raises(InputError, match="There is no teacher"):
        plan(load_pipeline_recipe(recipe_file, ["teacher=nowhere/at/all", output]))
    with pytest.raises(InputError, match="lcqmc"):
        run_pipeline(load_pipeline_recipe(recipe_file, [output]), DataSource("files", tmp_path))
    with pytest.raises(InputError, match="no suite 'third'"):
        run_pipeline(load_pipeline_recipe(recipe_file, [output, "measure.suites=[{suite: third}]"]), SAMPLE)
    monkeypatch.setattr(pipeline, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ctranslate2 is not installed.*mengzi-mt\[ctranslate2\]"):
        run_pipeline(load_pipeline_recipe(recipe_file, [output, "export.forms=[ctranslate2 int8]"]), SAMPLE)
    assert not (tmp_path / "run").exists()


def test_a_student_with_another_tokenizer_is_refused(recipe_file, tmp_path, sample_texts):
    from mengzi_mt.models.tokenizer import train_tokenizer

    train_tokenizer(sample_texts[:800], tmp_path / "other", 1_800, character_coverage=0.98, threads=1, partial=True)
    given = f"distil.overrides=['student={{shape: micro, tokenizer: {tmp_path / 'other'}}}']"
    with pytest.raises(InputError, match="different tokenizers"):
        run_pipeline(load_pipeline_recipe(recipe_file, [given, f"output={tmp_path / 'run'}"]), SAMPLE)
