import pytest
import yaml


@pytest.fixture
def recipe(tmp_path, tokenizer_dir):
    """A recipe of two steps on the bundled sample of one task."""
    values = {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "data": {"source": "sample", "validation_rows": 0},
        "model": {"shape": "micro", "tokenizer": str(tokenizer_dir)},
        "mixture": {"tasks": ["lcqmc"]},
        "training": {"steps": 2, "batch": 4},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_print_config_shows_the_whole_resolved_recipe(command, recipe):
    shown = command("train", recipe, "--print-config", "training.steps=9", "optimiser.learning_rate=1e-3")
    resolved = yaml.safe_load(shown.out)
    assert shown.code == 0
    assert (resolved["training"]["steps"], resolved["optimiser"]["learning_rate"]) == (9, 1e-3)
    assert {"data", "model", "mixture", "lengths", "optimiser", "training"} <= set(resolved)


def test_a_shipped_recipe_is_found_by_name(command):
    assert yaml.safe_load(command("train", "demo", "--print-config").out)["name"] == "demo"


def test_training_ends_with_a_checkpoint(command, recipe, tmp_path):
    shown = command("train", recipe)
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[-1] == str(tmp_path / "run/final")
    assert (tmp_path / "run/final/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stpes=3", "Did you mean 'steps'"),
        ("trainin.steps=3", "Did you mean 'training'"),
        ("training.precision=float16", "float16 is refused"),
        ("training.precision=fp16", "float16 is refused"),
        ("training.steps", "An override is written key.path=value"),
        ("training.steps=many", "key training.steps"),
        ("name.first=x", "'name' is a value, not a section"),
        ("training.steps=[1", "not valid YAML"),
        ("mixture.tasks=[lcqmcc]", "Did you mean 'lcqmc'"),
        ("mixture.tasks=[tnews]", "trains on zero-shot tasks: tnews"),
        ("data.source=files", "No data folder was given"),
        ("training.device=warp", "The device 'warp' cannot be used"),
    ],
)
def test_a_wrong_override_is_one_paragraph(command, recipe, override, message):
    assert message in command("train", recipe, override).refused()


def test_an_unknown_recipe_names_the_nearest(command):
    assert "Did you mean 'demo'" in command("train", "demoo").refused()


def test_a_missing_data_folder(command, recipe, tmp_path):
    message = command("train", recipe, "--data", "files", "--data-dir", tmp_path / "none").refused()
    assert "The data folder does not exist" in message


def test_a_broken_line_names_file_and_line(command, recipe, tmp_path):
    folder = tmp_path / "data/lcqmc"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("甲\t乙\t1\n甲\t乙\n", encoding="utf-8")
    message = command("train", recipe, "--data", "files", "--data-dir", tmp_path / "data").refused()
    assert f"{folder / 'train.txt'}, line 2" in message


def test_a_half_written_checkpoint_is_refused_as_a_start(command, recipe, checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    message = command("train", recipe, "model.shape=null", "model.tokenizer=null", f"model.init={checkpoint}").refused()
    assert "incomplete or damaged" in message
