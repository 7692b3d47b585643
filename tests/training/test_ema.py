import io

import pytest
import torch

from mengzi_mt.errors import InputError
from mengzi_mt.training.ema import Ema
from mengzi_mt.training.freezing import freeze


def drift(model, amount):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += amount


def test_updates_follow_the_formula(tiny_model):
    model, expected = tiny_model(), None
    ema = Ema(model, 0.3)
    expected = model.shared.weight.detach().double().clone()
    for number in range(1, 8):
        drift(model, 0.25)
        ema.update()
        decay = min(0.3, (1 + number) / (10 + number))  # 2/11, 3/12, then 0.3
        expected = decay * expected + (1 - decay) * model.shared.weight.detach().double()
    with ema.swap():
        torch.testing.assert_close(model.shared.weight.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_swap_gives_the_weights_back_bit_for_bit(tiny_model, dtype, tied):
    model = tiny_model(tied=tied).to(dtype)
    ema = Ema(model, 0.9)
    drift(model, 0.5)
    ema.update()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pointer = model.lm_head.weight.data_ptr()
    with pytest.raises(RuntimeError, match="on the way"), ema.swap():
        assert not torch.equal(model.lm_head.weight, before["lm_head.weight"])
        assert (model.lm_head.weight is model.shared.weight) == tied and model.lm_head.weight.data_ptr() == pointer
        raise RuntimeError("on the way")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_average_of_a_bfloat16_model_moves_by_less_than_a_bfloat16_step(tiny_model):
    model = tiny_model().to(torch.bfloat16)
    with torch.no_grad():
        model.shared.weight.fill_(1.0)
    ema = Ema(model, 0.9999)
    ema.updates = 10**9  # past the warm-up
    with torch.no_grad():
        model.shared.weight.fill_(2.0)
    for _ in range(10):
        ema.update()
    average = ema.state_dict()["averages"]["shared.weight"]
    assert average.dtype == torch.float32
    torch.testing.assert_close(average, torch.full_like(average, 1 + 10 * 1e-4), rtol=1e-5, atol=0)


def test_restored_average_goes_on_bit_for_bit(tiny_model):
    model = tiny_model()
    ema = Ema(model, 0.95)
    for _ in range(3):
        drift(model, 0.1)
        ema.update()
    buffer = io.BytesIO()
    torch.save(ema.state_dict(), buffer)
    buffer.seek(0)
    other = Ema(model, 0.95)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    drift(model, -0.3)
    ema.update()
    other.update()
    assert other.updates == 4
    for name, value in ema.state_dict()["averages"].items():
        assert torch.equal(value, other.state_dict()["averages"][name])


def test_only_trained_weights_are_averaged_and_others_are_refused(tiny_model):
    whole, partly = tiny_model(), tiny_model()
    freeze(partly, ["encoder.block.*"])
    state = Ema(partly, 0.9).state_dict()
    assert state["averages"] and not any(name.startswith("encoder.block") for name in state["averages"])
    with pytest.raises(InputError, match=r"encoder.block.0.*training.freeze"):
        Ema(whole, 0.9).load_state_dict(state)
