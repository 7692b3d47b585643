import warnings

import pytest
import torch
from torch import nn

from mengzi_mt.models.fake_int8 import FakeInt8Embedding, FakeInt8Linear, fake_int8, head_matrix, round_tokens
from mengzi_mt.models.int8 import Int8Embedding, Int8Linear, activation_levels, quantise_rows

NEAR = 0.02 * 127 / activation_levels()
"""What rounding may cost of a product's length: twice as much on a processor without VNNI."""


@pytest.fixture
def drawn():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def weight(drawn):
    matrix = torch.randn(24, 40, generator=drawn) * torch.rand(24, 1, generator=drawn)
    matrix[5] = 0
    return matrix


@pytest.fixture
def states(drawn):
    return torch.randn(9, 40, generator=drawn) * torch.logspace(-3, 3, 9)[:, None]


def rounded_by_hand(rows, levels):
    """Plain Python: every row by its largest absolute value, half to even."""
    found = []
    for row in rows.tolist():
        largest = max(map(abs, row)) or 1.0
        found.append([round(value / largest * levels) * largest / levels for value in row])
    return torch.tensor(found, dtype=torch.float64)


def test_rows_are_rounded_as_by_hand(weight):
    found = quantise_rows(weight)
    assert found.values.dtype == torch.int8 and int(found.values.abs().max()) == 127
    torch.testing.assert_close(found.whole().double(), rounded_by_hand(weight, 127), atol=1e-6, rtol=1e-6)
    assert torch.equal(found.rows(torch.tensor([[3, 5]]))[0], found.whole()[[3, 5]])


def test_a_layer_is_the_product_of_what_is_rounded_by_hand(weight, states):
    expected = rounded_by_hand(states, activation_levels()) @ rounded_by_hand(weight, 127).T
    found = Int8Linear(quantise_rows(weight))(states).double()
    assert (
        (found - expected).abs() / expected.abs().amax(1, keepdim=True)
    ).max() < 1e-4  # where a half is rounded, an integer differs
    plain = states.double() @ weight.double().T
    assert ((found - plain).norm(dim=1) / plain.norm(dim=1)).max() < NEAR


def test_a_token_does_not_depend_on_its_neighbours(weight, states):
    layer = Int8Linear(quantise_rows(weight))
    together = layer(states)
    for row in range(len(states)):
        assert torch.equal(layer(states[row : row + 1])[0], together[row])


def test_torchs_own_dynamic_quantisation_is_no_nearer_to_float(weight, states):
    layer = nn.Linear(40, 24, bias=False)
    layer.weight.data = weight.clone()
    torch.backends.quantized.engine = "x86"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(layer), {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}, dtype=torch.qint8
        )[0]
    integers = own.weight().int_repr().int()
    assert (integers - quantise_rows(weight).values.int()).abs().max() <= 1  # its scale is of 127.5 levels
    token = states[:1]  # one token has one range in both
    theirs, ours, exact = own(token), Int8Linear(quantise_rows(weight))(token), layer(token)
    assert (ours - theirs).norm() / exact.norm() < NEAR
    assert (Int8Linear(quantise_rows(weight))(states) - layer(states)).norm(dim=1)[:5].max() < (own(states) - layer(states)).norm(
        dim=1
    )[:5].max()


def test_the_faked_layer_is_the_layer_and_its_gradients_pass_straight_through(weight, states, drawn):
    layer = FakeInt8Linear(40, 24, bias=False)
    layer.weight.data = weight.clone()
    read = states.clone().requires_grad_()
    out = layer(read)
    torch.testing.assert_close(out, Int8Linear(quantise_rows(weight))(states), atol=1e-4, rtol=1e-3)
    above = torch.randn(9, 24, generator=drawn)
    (out * above).sum().backward()
    whole = quantise_rows(weight).whole()
    torch.testing.assert_close(read.grad, above @ whole)  # dL/dx = g W_rounded
    torch.testing.assert_close(layer.weight.grad, above.T @ round_tokens(states))  # dL/dW = gᵀ x_rounded


def test_a_faked_model_keeps_its_parameters_and_rounds_embedding_and_head(tiny_model):
    for tied in (True, False):
        model = tiny_model(tied=tied)
        names = list(model.state_dict())
        before = model.shared.weight.detach().clone()
        fake_int8(model)
        assert list(model.state_dict()) == names and torch.equal(model.shared.weight, before)
        ids = torch.tensor([[4, 9, 4]])
        table = quantise_rows(model.shared.weight)
        assert isinstance(model.encoder.embed_tokens, FakeInt8Embedding)
        torch.testing.assert_close(model.shared(ids), Int8Embedding(table)(ids))
        torch.testing.assert_close(head_matrix(model), quantise_rows(model.lm_head.weight).whole())


def test_training_with_the_rounding_leaves_less_to_lose(drawn):
    """Features that go together: errors of their weights can make up for each other, if they are trained to."""
    inputs = torch.randn(256, 1, generator=drawn) + 0.05 * torch.randn(256, 16, generator=drawn)
    inputs[:, 0] *= 0.01
    truth = torch.randn(4, 16, generator=drawn)
    truth[:, 0] = 40  # makes the steps of every row coarse
    targets = inputs @ truth.T
    losses = {}
    for kind in (nn.Linear, FakeInt8Linear):
        layer = kind(16, 4, bias=False)
        layer.weight.data = truth.clone()
        for step in range(200):
            layer.weight.grad = None
            (layer(inputs) - targets).pow(2).sum(1).mean().backward()
            layer.weight.data -= 0.02 * (1 - step / 200) * layer.weight.grad
        losses[kind] = float((Int8Linear(quantise_rows(layer.weight))(inputs) - targets).pow(2).mean())
    assert losses[FakeInt8Linear] < 0.5 * losses[nn.Linear]
