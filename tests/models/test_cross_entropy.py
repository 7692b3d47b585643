import pytest
import torch
from torch.nn import functional

from mengzi_mt.models import cross_entropy
from mengzi_mt.models.cross_entropy import LossSettings, linear_cross_entropy


@pytest.fixture(params=[64 * 2**20, 4 * 37 * 5], ids=["one chunk", "chunks of five"])
def case(request, monkeypatch):
    """Random states, head, labels and weights in float64, and the size of a chunk."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", request.param)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(23, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(37, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return (
        states,
        weight,
        torch.randint(0, 37, (23,), generator=generator),
        torch.rand(23, generator=generator, dtype=torch.float64),
    )


def plain(states, weight, labels, weights, smoothing, z):
    logits = states @ weight.T
    losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return ((losses + z * torch.logsumexp(logits, -1) ** 2) * weights).sum()


@pytest.mark.parametrize(("smoothing", "z"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.2, 1e-2)])
def test_loss_and_gradients_are_those_of_the_plain_formula(case, smoothing, z):
    states, weight, labels, weights = case
    total, losses = linear_cross_entropy(states, weight, labels, weights, LossSettings(smoothing, z))
    found = torch.autograd.grad(3 * total, (states, weight))
    expected = plain(states, weight, labels, weights, smoothing, z)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(found, torch.autograd.grad(3 * expected, (states, weight)))
    torch.testing.assert_close(losses, functional.cross_entropy(states @ weight.T, labels, reduction="none").detach())
    assert not losses.requires_grad


def test_frozen_head_or_states_get_no_gradient(case):
    states, weight, labels, weights = case
    total, _ = linear_cross_entropy(states, weight.detach(), labels, weights, LossSettings())
    total.backward()
    assert states.grad is not None
    total, _ = linear_cross_entropy(states.detach(), weight, labels, weights, LossSettings())
    total.backward()
    assert weight.grad is not None


def test_bfloat16_autocast_is_near_and_keeps_parameters_in_float32():
    states, weight = torch.randn(40, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels, weights = torch.randint(0, 50, (40,)), torch.ones(40)
    exact, _ = linear_cross_entropy(states, weight, labels, weights, LossSettings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near, losses = linear_cross_entropy(states, weight, labels, weights, LossSettings())
    assert near.dtype == losses.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=2e-2)
    near.backward()
    assert weight.grad.dtype == torch.float32
