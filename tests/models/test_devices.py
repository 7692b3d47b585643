import pytest
import torch

from mengzi_mt.errors import InputError
from mengzi_mt.models import devices
from mengzi_mt.models.devices import bfloat16_cost, pick_device, slow_bfloat16

CPU = torch.device("cpu")


def test_a_device_that_there_is_not_is_an_input_error():
    assert pick_device("cpu", "--device") == CPU
    with pytest.raises(InputError, match="cuda:99"):
        pick_device("cuda:99", "--device")


@pytest.mark.parametrize(
    ("cost", "precision", "device", "warned"),
    [
        (30.0, "bfloat16", "cpu", True),
        (0.6, "bfloat16", "cpu", False),
        (30.0, "float32", "cpu", False),
        (30.0, "bfloat16", "cuda", False),
    ],
)
def test_slow_bfloat16_is_warned_of_where_it_is_slow(monkeypatch, cost, precision, device, warned):
    monkeypatch.setattr(devices, "bfloat16_cost", lambda: cost)
    message = slow_bfloat16(precision, torch.device(device), "use float32")
    assert (message is not None) == warned
    if message:
        assert "30 times" in message
        assert message.endswith("use float32")


def test_the_cost_is_measured_once():
    assert bfloat16_cost() == bfloat16_cost() > 0
