import pytest
import torch

from mengzi_mt.errors import InputError
from mengzi_mt.training.freezing import freeze


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_pattern_freezes_what_it_names_and_nothing_else(tiny_model):
    model = tiny_model(tied=False)
    frozen = freeze(model, ["decoder.block.1.*", "*.final_layer_norm.weight"])
    assert set(frozen.names) == {
        name for name, _ in model.named_parameters() if name.startswith("decoder.block.1.") or "final_layer_norm" in name
    }
    assert trained(model).isdisjoint(frozen.names) and "lm_head.weight" in trained(model)
    assert frozen.parameters + frozen.trainable == sum(parameter.numel() for parameter in model.parameters())


def test_frozen_weights_get_no_gradient_and_do_not_move(tiny_model):
    model = tiny_model()
    freeze(model, ["encoder.block.*"])
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[8, 9]])).loss.backward()
    optimiser.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and not any(name.startswith("encoder.block.") for name in moved)


def test_a_shared_weight_is_frozen_by_any_of_its_names_and_says_so(tiny_model):
    model = tiny_model(tied=True)
    frozen = freeze(model, ["lm_head.*"])
    assert frozen.names == ("shared.weight",)
    assert set(frozen.shared["shared.weight"]) == {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert "shared.weight is also encoder.embed_tokens.weight" in frozen.sentence()
    untied = tiny_model(tied=False)
    assert freeze(untied, ["lm_head.*"]).names == ("lm_head.weight",)
    assert untied.shared.weight.requires_grad


def test_the_last_matching_pattern_decides(tiny_model):
    model = tiny_model(tied=False)
    freeze(model, ["*", "!lm_head.*"])
    assert trained(model) == {"lm_head.weight"}
    freeze(model, ["!lm_head.*", "*.SelfAttention.*"])
    assert "lm_head.weight" in trained(model) and not any(".SelfAttention." in name for name in trained(model))


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["encoder.blok.*"], "'encoder.blok.*' matches no parameter"),
        (["lm_head.weigth"], "Did you mean 'lm_head.weight'"),
        (["*"], "Every parameter is frozen"),
        (["encoder.*", "!nothing"], "'!nothing' matches no parameter"),
    ],
)
def test_refusals_change_nothing(tiny_model, patterns, said):
    model = tiny_model()
    with pytest.raises(InputError, match=r"training\.freeze") as caught:
        freeze(model, patterns)
    assert said in str(caught.value)
    assert all(parameter.requires_grad for parameter in model.parameters())
