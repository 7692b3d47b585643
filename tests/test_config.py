import pytest
import yaml

from mengzi_mt.config import LengthSettings, Recipe, dump_recipe, find_recipe, load_recipe
from mengzi_mt.errors import InputError
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


def test_recipe_does_not_change_after_reading(recipe_file):
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe_file).seed = 3


def test_unknown_recipe_is_an_input_error():
    with pytest.raises(InputError, match="no such recipe"):
        find_recipe("nothing-like-it")


@pytest.mark.parametrize("path", sorted(resource_dir("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_loads(path):
    assert load_recipe(path.stem).name
