import pytest
import torch

from mengzi_mt.data.flat import by_length, flat_batch
from mengzi_mt.data.tokens import TokenizedExample
from mengzi_mt.models.t5 import save_model

SECTIONS = {
    "data": {"source": "sample", "validation_rows": 4},
    "mixture": {"tasks": ["lcqmc", "finre"], "strategy": "equal"},
    "lengths": {"max_input": 96, "max_target": 24, "rows": [[96, 24]]},
    "optimiser": {"learning_rate": 1e-2, "warmup": 2},
    "training": {"steps": 6, "batch": 6, "micro_batch_tokens": 480, "log_every": 1, "checkpoint_every": 3, "device": "cpu"},
    "tracking": {"progress": "none", "peak_tflops": 1.0},
}


@pytest.fixture
def random_t5():
    """Makes a double-precision T5 whose biases and queries are large enough to matter: ``random_t5(heads=4, width=8, …)``."""
    from mengzi_mt.models import t5
    from mengzi_mt.models.shapes import Shape

    def make(d_model=32, heads=4, width=8, layers=2, tied=True, seed=0, vocabulary=60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(t5.SHAPES, "tiny", Shape(d_model, width, 64, layers, heads, vocabulary, tied))
            model = t5.build_model("tiny", vocabulary, 0.0, seed).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for stack in (model.encoder, model.decoder):
                table = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
                table.copy_(torch.randn(table.shape, generator=generator))
            for name, value in model.named_parameters():
                if name.endswith(".q.weight"):
                    value *= 2
        return model.eval()

    return make


@pytest.fixture
def examples():
    """Five examples of several lengths and weights, in the order of a batch."""
    generator = torch.Generator().manual_seed(5)
    drawn = lambda length: [*torch.randint(3, 60, (length - 1,), generator=generator).tolist(), 1]  # noqa: E731
    sizes = [(9, 4), (8, 2), (8, 5), (5, 3), (2, 2)]
    made = [TokenizedExample(drawn(n), drawn(m), 0.5 + k / 3, "lcqmc", "t", f"r{k}") for k, (n, m) in enumerate(sizes)]
    return by_length(made)


@pytest.fixture
def batch(examples):
    return flat_batch(examples, 0)


@pytest.fixture(scope="session")
def teacher_dir(tmp_path_factory, tokenizer_dir):
    """A folder with an untied T5 of four layers, 32 wide, and its tokenizer."""
    from mengzi_mt.models import t5
    from mengzi_mt.models.shapes import Shape

    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(t5.SHAPES, "tiny", Shape(32, 8, 64, 4, 4, 2_400, tied=False))
        save_model(t5.build_model("tiny", 2_400, seed=3), folder)
    for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer_dir / name).read_bytes())
    return folder


@pytest.fixture
def make_recipe(tmp_path, teacher_dir):
    """``make_recipe(output="run", losses={...}, training={"steps": 4})``: a distillation on the bundled samples."""
    from mengzi_mt.compression.distil_recipe import DistilRecipe

    def make(output="run", **changes):
        raw = {
            "name": "tiny",
            "output": str(tmp_path / output),
            "teacher": {"model": str(teacher_dir), "precision": "float32"},
            "student": {"layers": "even", "dropout": 0.1},
            **SECTIONS,
        }
        for key, value in changes.items():
            merged = isinstance(value, dict) and key not in ("student", "losses")
            raw[key] = {**raw.get(key, {}), **value} if merged else value
        return DistilRecipe.model_validate(raw)

    return make
