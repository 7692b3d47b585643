import pytest

from mengzi_mt.config import Recipe
from mengzi_mt.models.t5 import save_model
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.setup import set_up

SECTIONS = {
    "data": {"source": "sample", "validation_rows": 4},
    "mixture": {"tasks": ["lcqmc", "finre"], "strategy": "equal"},
    "lengths": {"max_input": 96, "max_target": 24, "rows": [[96, 24]]},
    "optimiser": {"learning_rate": 1e-2, "warmup": 2},
    "training": {"steps": 6, "batch": 6, "micro_batch_tokens": 480, "log_every": 2, "checkpoint_every": 3, "device": "cpu"},
}


@pytest.fixture(scope="session")
def initial_model(tmp_path_factory, tokenizer_dir):
    """A folder with an untied two-layer T5 and its tokenizer in the hub's layout."""
    from mengzi_mt.models import t5
    from mengzi_mt.models.shapes import Shape

    folder = tmp_path_factory.mktemp("initial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(t5.SHAPES, "tiny", Shape(32, 8, 64, 2, 4, 2_400, tied=False))
        save_model(t5.build_model("tiny", 2_400), folder)
    (folder / "spiece.model").write_bytes((tokenizer_dir / "spiece.model").read_bytes())
    return folder


@pytest.fixture
def make_recipe(tmp_path, initial_model, tokenizer_dir):
    """Makes a recipe of a few steps: ``make_recipe(output="a", training={"steps": 4}, …)``."""

    def make(output="run", **changes):
        raw = {
            "name": "tiny",
            "output": str(tmp_path / output),
            "model": {"init": str(initial_model), "tokenizer": str(tokenizer_dir), "dropout": 0.1},
            **SECTIONS,
        }
        for key, value in changes.items():
            raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
        return Recipe.model_validate(raw)

    return make


@pytest.fixture
def make_run(make_recipe):
    """Makes a run on the bundled samples from the arguments of ``make_recipe``."""
    return lambda *args, **changes: set_up(make_recipe(*args, **changes), DataSource("sample"))
