import pytest
import yaml

from mengzi_mt.compression.distil_recipe import load_distil_recipe
from mengzi_mt.compression.pipeline_recipe import load_pipeline_recipe
from mengzi_mt.compression.pruning_recipe import load_prune_recipe
from mengzi_mt.config import LengthSettings, Recipe, dump_recipe, find_recipe, load_recipe
from mengzi_mt.errors import InputError
from mengzi_mt.pretraining.ablation_recipe import load_ablation_recipe
from mengzi_mt.pretraining.encoder_recipe import load_encoder_recipe
from mengzi_mt.resources import resource_dir

BASE = """
name: try
model: {shape: micro, tokenizer: train}
mixture: {tasks: [lcqmc, cmnli]}
training: {steps: 10}
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "try.yaml"
    path.write_text(BASE, encoding="utf-8")
    return path


def test_defaults_are_filled_and_the_run_folder_follows_the_name(recipe_file):
    recipe = load_recipe(recipe_file)
    assert (recipe.training.steps, recipe.optimiser.name, str(recipe.run_dir)) == (10, "adamw_scaled", "runs/try")


def test_resolved_recipe_reads_back_equal(recipe_file):
    recipe = load_recipe(recipe_file, ["optimiser.learning_rate=1e-4", "description=中文"])
    assert Recipe.model_validate(yaml.safe_load(dump_recipe(recipe))) == recipe
    assert "中文" in dump_recipe(recipe)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimiser.learning_rate=1e-4", lambda r: r.optimiser.learning_rate == 1e-4),
        ("mixture.tasks=[a, b]", lambda r: r.mixture.tasks == ("a", "b")),
        ("training.precision=bf16", lambda r: r.training.precision == "bfloat16"),
        ("output=/x=y", lambda r: str(r.run_dir) == "/x=y"),
    ],
)
def test_override_is_read_as_yaml(recipe_file, override, value):
    assert value(load_recipe(recipe_file, [override]))


@pytest.mark.parametrize(
    ("override", "key", "said"),
    [
        ("traning.steps=3", "traning", "Did you mean 'training'"),
        ("training.stps=3", "training.stps", "Did you mean 'steps'"),
        ("training.steps=many", "training.steps", "integer"),
        ("training.precision=fp16", "training.precision", "float16 is refused"),
        ("model.init=somewhere", "model", "give either `shape`"),
        ("model.tokenizer=null", "model", "needs a `tokenizer`"),
        ("mixture.tasks=[a, a]", "mixture", "named twice"),
        ("mixture.strategy=explicit", "mixture", "needs `rates`"),
        ("mixture.rates.lcqmc=0", "mixture.rates", "positive number"),
        ("mixture.rates.lcqmc=-1", "mixture.rates", "the rate of 'lcqmc' is -1.0; it must be a positive number"),
        ("mixture.rates.lcqmc=.nan", "mixture.rates.lcqmc", "finite number"),
        ("mixture.rates.lcqmc=.inf", "mixture.rates.lcqmc", "finite number"),
        ("mixture.rates={lcqmc: 1}", "mixture", "set `strategy: explicit`, or remove them"),
        ("mixture={tasks: [lcqmc, cmnli], strategy: explicit, rates: {lcqmc: 1}}", "mixture", "there is none for cmnli"),
        ("mixture={tasks: [lcqmc], strategy: explicit, rates: {lcqm: 1, lcqmc: 1}}", "mixture", "Did you mean 'lcqmc'"),
        ("mixture.templates={lcqm: [a]}", "mixture", "`templates` names 'lcqm', which is not among `tasks`"),
        ("mixture.temperature=0", "mixture.temperature", "greater than 0"),
        ("mixture.temperature=.nan", "mixture.temperature", "finite number"),
        ("mixture.temperature=.inf", "mixture.temperature", "finite number"),
        ("mixture.cap=0", "mixture.cap", "greater than or equal to 1"),
        ("mixture.stages=[{until_step: 5}, {until_step: 5}, {}]", "mixture", "they must rise"),
        ("mixture.stages=[{}, {}]", "mixture", "every stage but the last needs an `until_step`"),
        ("mixture.stages=[{until_step: 5}]", "mixture", "the last stage lasts to the end"),
        ("mixture.stages=[{tasks: [lcqm]}]", "mixture", "Did you mean 'lcqmc'"),
        ("mixture.stages=[{tasks: [lcqmc]}]", "mixture", "no stage draws from cmnli"),
        ("mixture.stages=[{strategy: explicit}]", "mixture", "stage 1: `explicit` needs `rates`"),
        (
            "mixture.stages=[{strategy: explicit, rates: {lcqmc: 0, cmnli: 1}}]",
            "mixture",
            "stage 1, rates: the rate of 'lcqmc' is 0.0",
        ),
        ("mixture.stages=[{until_stop: 5}]", "mixture.stages.0.until_stop", "Did you mean 'until_step'"),
        ("mixture.stages=[{lengths: {max_inputs: 5}}]", "mixture.stages.0.lengths.max_inputs", "Did you mean 'max_input'"),
        ("name=a/b", "name", "pattern"),
        ("stopping.patience=3", "(whole recipe)", "training.validate_every"),
        ("training.ema=1.0", "training.ema", "less than 1"),
        ("model=3", "model", "dictionary"),
    ],
)
def test_wrong_value_names_the_key(recipe_file, override, key, said):
    with pytest.raises(InputError) as caught:
        load_recipe(recipe_file, [override])
    assert caught.value.where == f"{recipe_file}, key {key}"
    assert said in str(caught.value)


@pytest.mark.parametrize("override", ["steps", "=1", "training.steps=[", "name.x=1", "seed=2001-13-45"])
def test_malformed_override_is_named(recipe_file, override):
    with pytest.raises(InputError) as caught:
        load_recipe(recipe_file, [override])
    assert caught.value.where == override


def test_row_lengths_must_rise_and_hold_the_longest_example():
    with pytest.raises(ValueError, match="must rise"):
        LengthSettings(rows=((512, 128), (256, 32)))
    with pytest.raises(ValueError, match="must hold"):
        LengthSettings(max_input=64, max_target=16, rows=((64, 8), (32, 16))[::-1])


def staged(recipe_file, *stages):
    return load_recipe(recipe_file, [f"mixture.stages=[{', '.join(stages)}]"])


def test_a_stage_takes_from_the_mixture_what_it_does_not_give(recipe_file):
    first = "{until_step: 5, tasks: [lcqmc], lengths: {max_input: 64, max_target: 16, rows: [[64, 16]]}}"
    recipe = staged(recipe_file, first, "{until_step: 8, strategy: explicit, rates: {lcqmc: 1, cmnli: 3}}", "{cap: 7}")
    assert recipe.stage_starts() == [0, 5, 8]
    stages = [recipe.mixture.at_stage(number) for number in range(3)]
    assert [stage.tasks for stage in stages] == [("lcqmc",), ("lcqmc", "cmnli"), ("lcqmc", "cmnli")]
    assert [stage.strategy for stage in stages] == ["proportional", "explicit", "proportional"]
    assert (stages[1].rates, [stage.cap for stage in stages]) == ({"lcqmc": 1, "cmnli": 3}, [500_000, 500_000, 7])
    assert [recipe.lengths_at(step).max_input for step in (0, 4, 5, 10**6)] == [64, 64, 512, 512]
    assert Recipe.model_validate(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_a_stage_of_an_explicit_mixture_keeps_the_rates_of_its_tasks(recipe_file):
    mixture = "mixture={tasks: [a, b, c], strategy: explicit, rates: {a: 1, b: 2, c: 3}, stages: [%s]}"
    stages = "{until_step: 2, tasks: [a, c]}, {until_step: 3, strategy: equal}, {}"
    recipe = load_recipe(recipe_file, [mixture % stages])
    assert [recipe.mixture.at_stage(number).rates for number in range(3)] == [{"a": 1, "c": 3}, {}, {"a": 1, "b": 2, "c": 3}]


def test_without_stages_there_is_one(recipe_file):
    recipe = load_recipe(recipe_file)
    assert (recipe.stage_starts(), recipe.lengths_at(3)) == ([0], recipe.lengths)


def test_recipe_does_not_change_after_reading(recipe_file):
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe_file).seed = 3


def test_an_override_makes_a_section_of_null(recipe_file):
    recipe_file.write_text(BASE.replace("steps: 10", "steps: 10, lora: null") + "denoising:\n", encoding="utf-8")
    recipe = load_recipe(recipe_file, ["training.lora.rank=3", "model.init=x", "model.shape=null"])
    assert recipe.training.lora is not None and recipe.training.lora.rank == 3
    with pytest.raises(InputError, match="'steps' is a value"):
        load_recipe(recipe_file, ["training.steps.more=3"])


def test_a_mixture_may_be_that_of_another_recipe(recipe_file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(
        f"name: other\nmodel: {{shape: mini, tokenizer: train}}\nmixture: {recipe_file}\ntraining: {{steps: 3}}\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"Unknown key .nonsense"):
        load_recipe(other, ["mixture.nonsense=1"])
    read = load_recipe(other, ["mixture.strategy=equal"])
    assert (read.mixture.tasks, read.mixture.strategy, read.name) == (("lcqmc", "cmnli"), "equal", "other")
    release = load_recipe(recipe_file, ["mixture=release-mini"]).mixture
    assert load_recipe(recipe_file, ["mixture={of: release-mini, vary_choices: 0.5}"]).mixture == release.model_copy(
        update={"vary_choices": 0.5}
    )
    assert release == load_recipe("release-mini").mixture
    with pytest.raises(InputError, match="no mixture that another one could use"):
        load_recipe(recipe_file, [f"mixture={other}"])  # which has none of its own
    with pytest.raises(InputError, match="no such recipe"):
        load_recipe(recipe_file, ["mixture=release-minimal"])


def test_unknown_recipe_is_an_input_error():
    with pytest.raises(InputError, match="no such recipe"):
        find_recipe("nothing-like-it")


@pytest.mark.parametrize("path", sorted(resource_dir("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_loads(path):
    loaders = {
        "pretrain-encoder": load_encoder_recipe,
        "ablate-": load_ablation_recipe,
        "distil-": load_distil_recipe,
        "prune-": load_prune_recipe,
        "compress-": load_pipeline_recipe,
    }
    load = next((loader for prefix, loader in loaders.items() if path.stem.startswith(prefix)), load_recipe)
    assert load(path.stem).name


def test_adafactor_is_refused_where_matrices_are_sharded():
    with pytest.raises(InputError, match="Adafactor keeps means of a matrix's rows"):
        load_recipe("demo", ["training.parallel=fsdp", "optimiser.name=adafactor"])
    assert load_recipe("demo", ["training.parallel=fsdp"]).training.parallel == "fsdp"
