import math

import pytest
import torch

from mengzi_mt.compression.distil_logits import TaughtTokens, distillation_loss
from mengzi_mt.models import cross_entropy
from mengzi_mt.models.cross_entropy import LossSettings, linear_cross_entropy

TOKENS, WIDTH, PIECES = 6, 4, 9


@pytest.fixture(params=[64 * 2**20, 4 * PIECES * 4], ids=["one chunk", "chunks of four"])
def case(request, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", request.param)
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    states, weight = draw(TOKENS, WIDTH).requires_grad_(), draw(PIECES, WIDTH).requires_grad_()
    labels = torch.randint(0, PIECES - 2, (TOKENS,), generator=generator)
    weights = torch.rand(TOKENS, generator=generator, dtype=torch.float64)
    return states, weight, labels, weights, draw(TOKENS, 3), draw(PIECES, 3)


def log_softmax(values):
    highest = max(values)
    norm = highest + math.log(sum(math.exp(value - highest) for value in values))
    return [value - norm for value in values]


def slowly(states, weight, labels, weights, taught, taught_head, hard, soft, temperature, pieces):
    product = lambda state, head: [sum(a * b for a, b in zip(state, row, strict=True)) for row in head]  # noqa: E731
    total = 0.0
    for state, label, each, theirs in zip(states, labels, weights, taught, strict=True):
        logits, target = product(state, weight), product(theirs, taught_head[:pieces])
        p = log_softmax([value / temperature for value in target])
        q = log_softmax([value / temperature for value in logits[:pieces]])
        divergence = sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
        total += each * (hard * -log_softmax(logits)[label] + soft * temperature**2 * divergence)
    return total


@pytest.mark.parametrize(("hard", "soft", "temperature"), [(0.0, 1.0, 1.0), (0.5, 0.7, 2.5)])
@pytest.mark.parametrize("pieces", [PIECES, PIECES - 2])
def test_it_is_the_formula(case, hard, soft, temperature, pieces):
    states, weight, labels, weights, taught, taught_head = case
    total, losses, apart = distillation_loss(
        states, weight, labels, weights, TaughtTokens(taught, taught_head[:pieces]),
        hard=hard, soft=soft, temperature=temperature, terms=LossSettings(),
    )  # fmt: skip
    expected = slowly(*(part.tolist() for part in case), hard, soft, temperature, pieces)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert (weights * (hard * losses + soft * apart)).sum().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("terms", [LossSettings(), LossSettings(0.1, 1e-2)])
def test_gradients_are_those_of_small_steps(case, terms):
    states, weight, labels, weights, taught, taught_head = case

    def loss(states, weight):
        teacher = TaughtTokens(taught, taught_head[: PIECES - 2])
        return distillation_loss(states, weight, labels, weights, teacher, hard=0.6, soft=1.3, temperature=2.0, terms=terms)[0]

    assert torch.autograd.gradcheck(loss, (states, weight))


def test_without_the_teacher_it_is_the_cross_entropy(case):
    states, weight, labels, weights, taught, taught_head = case
    terms = LossSettings(0.1, 1e-2)
    found = distillation_loss(
        states, weight, labels, weights, TaughtTokens(taught, taught_head), hard=1.0, soft=0.0, temperature=2.0, terms=terms
    )
    plain = linear_cross_entropy(states, weight, labels, weights, terms)
    torch.testing.assert_close(found[0], plain[0])
    torch.testing.assert_close(found[1], plain[1])
    assert not found[2].requires_grad
