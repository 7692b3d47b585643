import pytest
import yaml

from mengzi_mt.config import TrainingSettings
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import is_tied, save_model
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.checkpoint import read_manifest
from mengzi_mt.training.loop import train
from mengzi_mt.training.setup import resolve, set_up


def test_zero_shot_task_is_refused(make_run):
    with pytest.raises(InputError, match="trains on zero-shot tasks: eprstmt") as caught:
        make_run(mixture={"tasks": ["lcqmc", "eprstmt"]})
    assert caught.value.where == "recipe 'tiny', key mixture.tasks"
    assert "mixture.allow_zero_shot_tasks: true" in caught.value.fix


def test_zero_shot_task_that_is_allowed_stands_in_the_checkpoint(make_run):
    run = make_run(mixture={"tasks": ["lcqmc", "eprstmt"], "allow_zero_shot_tasks": True}, training={"steps": 1})
    assert read_manifest(train(run))["zero_shot_tasks_trained_on"] == ["eprstmt"]


@pytest.mark.parametrize(("split", "flag"), [("train", False), ("test", True), ("test_public", True), ("[train, test]", True)])
def test_training_on_an_official_test_split_is_flagged(make_recipe, tmp_path, split, flag):
    folder = tmp_path / "data" / "lcqmc"
    folder.mkdir(parents=True)
    lines = [f"问题{n}\t提问{n}\t{n % 2}" for n in range(60)]
    (folder / "extract.txt").write_text("\n".join(lines), encoding="utf-8")
    path = tmp_path / "map.yaml"
    path.write_text(f"tasks: {{lcqmc: {{train: {{files: [extract.txt], official_split: {split}}}}}}}", encoding="utf-8")
    source = DataSource("files", tmp_path / "data", load_data_map(path))
    run = set_up(make_recipe(mixture={"tasks": ["lcqmc"]}, training={"steps": 1}), source)
    data = read_manifest(train(run))["data"]["lcqmc"]
    assert data["trained_on_official_test"] is flag
    assert data["official_split"] == yaml.safe_load(f"[{split.strip('[]')}]")
    assert (data["data_map"], data["research_only"]) == ("map", True)
    assert 0 < data["rows"] < data["read"] + 1 == 61


def test_folder_in_the_hubs_layout_gives_model_and_tokenizer(make_recipe, initial_model, tokenizer):
    recipe = make_recipe(model={"tokenizer": None})
    assert {path.name for path in initial_model.iterdir()} >= {"config.json", "model.safetensors", "spiece.model"}
    run = set_up(recipe, DataSource("sample"))
    assert not is_tied(run.model)
    assert (run.tokenizer.pad_token_id, run.tokenizer.eos_token_id) == (0, 1)
    assert len(run.tokenizer) == run.model.config.vocab_size == len(tokenizer)
    assert train(run).is_dir()


def test_dropout_of_the_recipe_reaches_the_model(make_run):
    assert make_run(model={"dropout": 0.25}).model.config.dropout_rate == 0.25


def test_tokenizer_larger_than_the_model_is_refused(make_run, tiny_model, tmp_path):
    save_model(tiny_model(vocabulary=300), tmp_path)
    with pytest.raises(InputError, match=r"tokenizer has 2,400 pieces, the model only 300"):
        make_run(model={"init": str(tmp_path)})


def test_tokenizer_is_trained_once_a_run_folder(make_recipe):
    model = {"shape": "micro", "init": None, "tokenizer": "train"}
    recipe = make_recipe(model=model, mixture={"tasks": ["lcqmc"]})
    first, second = (set_up(recipe, DataSource("sample")) for _ in range(2))
    assert (recipe.run_dir / "tokenizer" / "tokenizer.json").is_file()
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    assert first.model.config.vocab_size == len(first.tokenizer) < 8_000


def test_mixture_and_validation_follow_the_recipe(make_run):
    run = make_run(mixture={"rows_per_task": 20}, data={"validation_rows": 3})
    assert [len(pool.rows) for pool in run.mixture.pools] == [20, 20]
    assert run.mixture.rates == [0.5, 0.5]
    assert {task: len(examples) for task, examples in run.validation.items()} == {"lcqmc": 3, "finre": 3}
    trained = {row.row_id for row in run.mixture.pools[0].rows}
    assert not trained & {example.row_id for example in run.validation["lcqmc"]}
    assert make_run(data={"validation_rows": 0}).validation == {"lcqmc": [], "finre": []}


def test_stages_begin_at_their_steps(make_run):
    stages = [{"until_step": 4, "tasks": ["finre"]}, {"strategy": "explicit", "rates": {"lcqmc": 3, "finre": 1}}]
    run = make_run(mixture={"stages": stages}, training={"steps": 5, "batch": 6})
    assert {example.task for example in run.mixture.examples(0, 24)} == {"finre"}
    assert [sum(names.values()) for names in run.mixture.counts(24, 424).values()] == pytest.approx([100, 300], abs=4 + 50)
    told = [{"from_step": 0, "rates": {"finre": 1.0}}, {"from_step": 4, "rates": {"lcqmc": 0.75, "finre": 0.25}}]
    assert run.provenance["mixture_stages"] == told


def test_templates_are_those_that_the_recipe_names(make_run):
    chosen = make_run().mixture.pools[0].templates[1].name
    run = make_run(mixture={"templates": {"lcqmc": [chosen]}, "original_only": True})
    assert [template.name for template in run.mixture.pools[0].templates] == [chosen]
    assert all(template.metadata.original_task for pool in run.mixture.pools for template in pool.templates)
    every = make_run().mixture.pools
    few = make_run(mixture={"templates_per_task": 2}).mixture.pools
    assert [pool.templates for pool in few] == [pool.templates[:2] for pool in every]


@pytest.mark.parametrize("name", ["float16", "fp16", "half", 16])
def test_float16_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match="overflow its range and the loss becomes NaN; use bfloat16"):
        TrainingSettings(steps=1, precision=name)


def test_shipped_folder_is_found_by_its_name(tmp_path):
    assert resolve("recipes").endswith("recipes") and resolve(str(tmp_path)) == str(tmp_path)
    assert resolve("owner/model") == "owner/model"


def test_validation_examples_are_drawn_across_a_sorted_file():
    from mengzi_mt.data.examples import select_templates
    from mengzi_mt.tasks.registry import get_task
    from mengzi_mt.tasks.rows import ReadCounts, Row, Rows
    from mengzi_mt.training.setup import validation_examples

    task = get_task("chnsenticorp")
    rows = [Row(f"f:{n}", {"review": f"第{n}条评论", "label": int(n >= 500)}) for n in range(1000)]
    examples = validation_examples(task, Rows(task, "validation", rows, ReadCounts(), {}), select_templates(task, None)[:1], 40)
    assert len(examples) == 40
    assert len({example.targets for example in examples}) == 2


def view_file(tmp_path, *row_ids):
    from mengzi_mt.data.view import TaskView, file_hashes, write_view
    from mengzi_mt.tasks.registry import get_task

    task = get_task("lcqmc")
    hashes = file_hashes(task, DataSource("sample"), ["sample.jsonl"])
    write_view(tmp_path / "view.yaml", {"lcqmc": TaskView(frozenset(row_ids), hashes, task.version)}, {})
    return str(tmp_path / "view.yaml")


def test_rows_of_a_view_are_left_out_and_counted_in_the_manifest(make_run, tmp_path, capsys):
    before = [row.row_id for row in make_run().mixture.pools[0].rows]
    exclude = view_file(tmp_path, *before[:3], "sample.jsonl:99999")
    run = make_run(output="b", data={"exclude": exclude}, training={"steps": 1})
    assert [row.row_id for row in run.mixture.pools[0].rows] == before[3:]
    excluded = read_manifest(train(run))["data"]["lcqmc"]["excluded"]
    assert (excluded["view"], excluded["listed"], excluded["left_out"]) == ("view.yaml", 4, {"train": 3, "validation": 0})
    assert (excluded["not_found"], excluded["first_not_found"]) == (1, ["sample.jsonl:99999"])
    said = capsys.readouterr().err
    assert "lists 1 rows of 'lcqmc' that are not there (first: sample.jsonl:99999)" in said
    assert "says nothing of the task 'finre'" in said
    assert run.provenance["data"]["finre"]["excluded"]["listed"] is None


def test_without_a_view_the_manifest_says_so(make_run):
    assert make_run().provenance["data"]["lcqmc"]["excluded"] is None


def test_a_view_that_is_not_there_is_refused(make_run):
    with pytest.raises(InputError, match="The view does not exist"):
        make_run(data={"exclude": "nowhere.yaml"})
