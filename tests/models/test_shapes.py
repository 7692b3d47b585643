import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from mengzi_mt.models.shapes import SHAPES
from mengzi_mt.models.t5 import build_model, is_tied, parameter_count


def parameters(name):
    """Parameters of a shape by T5's layout, without building it."""
    s = SHAPES[name]
    inner = s.heads * s.d_kv
    attention, feed_forward, norm = 4 * s.d_model * inner, 3 * s.d_model * s.d_ff, s.d_model
    encoder = s.layers * (attention + feed_forward + 2 * norm)
    decoder = s.layers * (2 * attention + feed_forward + 3 * norm)
    embeddings = s.vocabulary * s.d_model * (1 if s.tied else 2)
    return encoder + decoder + embeddings + 2 * norm + 2 * 32 * s.heads


@pytest.mark.parametrize(("name", "millions"), [("mini", 11.2), ("small", 77.0), ("base", 247.6)])
def test_shapes_have_the_published_sizes(name, millions):
    assert parameters(name) / 1e6 == pytest.approx(millions, rel=0.01)


def test_base_is_the_shape_of_mengzi_t5_base():
    with torch.device("meta"):
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=32_128, d_model=768, d_kv=64, d_ff=2_048, num_layers=12, num_heads=12,
                     feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        )  # fmt: skip
    assert parameter_count(model) + 32_128 * 768 == parameters("base") == 247_577_856  # the library ties its fresh head


def test_count_by_layout_is_the_count_of_the_model():
    assert parameter_count(build_model("micro", SHAPES["micro"].vocabulary)) == parameters("micro")


def test_heads_are_tied_below_small():
    assert {name: shape.tied for name, shape in SHAPES.items()} == {"micro": True, "mini": True, "small": False, "base": False}


@pytest.mark.parametrize("tied", [True, False])
def test_fresh_model_has_the_head_of_its_shape(tiny_model, tied):
    model = tiny_model(tied=tied)
    assert is_tied(model) == tied == model.config.scale_decoder_outputs
    assert tied or not torch.equal(model.lm_head.weight, model.shared.weight)
    assert model.encoder.embed_tokens.weight is model.shared.weight is model.decoder.embed_tokens.weight


def test_weights_come_from_the_seed_alone(tiny_model):
    state = torch.get_rng_state()
    first, again, other = tiny_model(tied=False, seed=3), tiny_model(tied=False, seed=3), tiny_model(tied=False, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
