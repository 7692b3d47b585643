import sys

import pytest
import torch

from mengzi_mt.config import LoraSettings
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import load_model, save_model
from mengzi_mt.training.lora import add_lora, load_lora_state, lora_state, merged

INPUTS = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([[8, 9, 1]])}


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


def train(model, steps=3):
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(**INPUTS).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("tied", [True, False])
def test_only_adapters_train_and_the_base_stays(peft, tiny_model, tied):
    model = tiny_model(tied=tied)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model(**INPUTS).logits
    state = torch.get_rng_state()
    count = add_lora(model, LoraSettings(rank=2, targets=("q", "v", "wo")), seed=3)
    assert torch.equal(state, torch.get_rng_state())
    # q and v: 2 encoder, 4 decoder attentions, 32 to 32; wo: 4 layers, 64 to 32
    assert count == 2 * (2 * 6 * (32 + 32) + 4 * (64 + 32))
    torch.testing.assert_close(model(**INPUTS).logits, logits, rtol=1e-5, atol=1e-5)  # B is zero at first
    losses = train(model)
    assert losses[-1] < losses[0]
    for name, value in model.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name


def test_an_export_is_a_plain_t5_with_the_same_logits_and_training_goes_on(peft, tiny_model, tmp_path):
    model = tiny_model(tied=False)
    plain_keys = set(model.state_dict())
    add_lora(model, LoraSettings(rank=2))
    train(model)
    model.eval()
    logits = model(**INPUTS).logits
    held = {name: value.clone() for name, value in model.state_dict().items()}
    with merged(model):
        assert set(model.state_dict()) == plain_keys
        save_model(model, tmp_path)
    assert set(held) == set(model.state_dict())
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(load_model(tmp_path).eval()(**INPUTS).logits, logits, rtol=1e-4, atol=1e-4)
    assert not torch.equal(tiny_model(tied=False).eval()(**INPUTS).logits, logits)


def test_saved_adapters_give_the_same_run(peft, tiny_model):
    settings = LoraSettings(rank=2, dropout=0.0)
    model, other = tiny_model(), tiny_model()
    add_lora(model, settings, seed=1)
    train(model)
    add_lora(other, settings, seed=2)
    load_lora_state(other, lora_state(model))
    assert train(model) == train(other)
    wider = tiny_model()
    add_lora(wider, LoraSettings(rank=4))
    with pytest.raises(InputError, match="adapters do not fit"):
        load_lora_state(wider, lora_state(model))


def test_an_unknown_target_is_named(peft, tiny_model):
    with pytest.raises(InputError, match=r"no linear layer called 'wi'.*training.lora.targets.*wi_0"):
        add_lora(tiny_model(), LoraSettings(targets=("q", "wi")))


def test_without_peft_the_install_line_is_given(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'mengzi-mt\[lora\]'"):
        add_lora(tiny_model(), LoraSettings())
