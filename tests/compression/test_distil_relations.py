import math

import pytest
import torch
from torch import nn

from mengzi_mt.compression.distil_relations import (
    Attending,
    Layout,
    Projections,
    chosen_layer,
    recorded,
    relation_heads,
    relation_loss,
)
from mengzi_mt.errors import InputError

TEXTS, QUERIES, KEYS = 3, 5, 7


def softmax(scores):
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return [power / sum(powers) for power in powers]


def slow_divergence(left, right, seen, weights, theirs_scale, own_scale, biases=(None, None)):
    """Sum over texts, heads and rows of w KL / heads, by loops; ``left`` and ``right`` are (teacher's, student's) nested lists
    (texts, heads, length, width)."""
    total = 0.0
    heads = len(left[0][0])
    for text, row_weights in enumerate(weights):
        for row, weight in enumerate(row_weights):
            columns = [column for column in range(len(right[0][text][0])) if seen(text, row, column)]
            for head in range(heads if weight else 0):
                p, q = (
                    softmax(
                        [
                            scale * sum(a * b for a, b in zip(one[text][head][row], other[text][head][column], strict=True))
                            + (0.0 if bias is None else bias[head][row][column])
                            for column in columns
                        ]
                    )
                    for one, other, scale, bias in zip(left, right, (theirs_scale, own_scale), biases, strict=True)
                )
                total += weight / heads * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total


def split(tensor, heads):
    """(texts, length, width) to nested lists (texts, heads, length, width of a head), by the letter of MiniLMv2."""
    size = tensor.shape[-1] // heads
    return [[[row[h * size : (h + 1) * size] for row in text] for h in range(heads)] for text in tensor.tolist()]


@pytest.fixture(params=["encoder", "decoder", "cross"])
def case(request):
    """Teacher with 2 heads of 6, student with 4 heads of 2 (or as many heads), and padding at the ends of some texts."""
    generator = torch.Generator().manual_seed(1)
    cross, causal = request.param == "cross", request.param == "decoder"
    queries = QUERIES if cross else KEYS

    def attending(heads, width, t5=True):
        make = lambda n: torch.randn(TEXTS, n, heads * width, generator=generator, dtype=torch.float64, requires_grad=True)  # noqa: E731
        bias = None if cross or not t5 else torch.randn(heads, queries, KEYS, generator=generator, dtype=torch.float64)
        found = Projections(make(queries), make(KEYS), make(KEYS))
        return Attending(found, heads, 1.0 if t5 else width**-0.5, width**0.5 if t5 else 1.0, bias)

    own = torch.rand(TEXTS, KEYS, generator=generator, dtype=torch.float64) + 0.1
    own[1, 5:] = 0
    own[2, 2:] = 0
    asking = torch.rand(TEXTS, queries, generator=generator, dtype=torch.float64) + 0.1 if cross else own
    if cross:
        asking[0, 3:] = 0
    return attending, Layout(asking, own, causal, cross)


def seen_by(layout, columns):
    weights = getattr(layout, columns).tolist()
    return lambda text, row, column: weights[text][column] != 0 and (not layout.causal or column <= row)


@pytest.mark.parametrize("t5", [True, False])
def test_minilm_is_its_formula(case, t5):
    attending, layout = case
    teacher, student = attending(2, 6, t5), attending(2, 3, t5)
    attention = [(split(one.projections.query, 2), split(one.projections.key, 2)) for one in (teacher, student)]
    values = [split(one.projections.value, 2) for one in (teacher, student)]
    biases = [None if one.bias is None else one.bias.tolist() for one in (teacher, student)]
    scales = (1.0, 1.0) if t5 else (6**-0.5, 3**-0.5)
    expected = slow_divergence(
        [pair[0] for pair in attention], [pair[1] for pair in attention], seen_by(layout, "keys"), layout.queries.tolist(),
        *scales, biases,
    )  # fmt: skip
    expected += slow_divergence(values, values, seen_by(layout, "keys"), layout.keys.tolist(), 6**-0.5, 3**-0.5)
    assert relation_loss("minilm", None, teacher, student, layout).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("t5", [True, False])
@pytest.mark.parametrize("heads", [1, 4])
def test_minilmv2_is_its_formula_whatever_the_heads_of_either_side(case, t5, heads):
    attending, layout = case
    teacher, student = attending(2, 6, t5), attending(4, 2, t5)
    wide = [one.projections for one in (teacher, student)]
    scales = [(12 / heads) ** -0.5, (8 / heads) ** -0.5]
    back = [6**0.5, 2**0.5] if t5 else [1.0, 1.0]
    parts = lambda name: [split(getattr(one, name), heads) for one in wide]  # noqa: E731
    terms = []
    if layout.cross:
        terms.append(
            slow_divergence(
                parts("query"), parts("key"), seen_by(layout, "keys"), layout.queries.tolist(),
                *(scale * factor for scale, factor in zip(scales, back, strict=True)),
            )
        )  # fmt: skip
    else:
        squared = [scale * factor**2 for scale, factor in zip(scales, back, strict=True)]
        terms.append(slow_divergence(parts("query"), parts("query"), seen_by(layout, "queries"), layout.queries.tolist(), *squared))
        terms.append(slow_divergence(parts("key"), parts("key"), seen_by(layout, "keys"), layout.keys.tolist(), *scales))
    terms.append(slow_divergence(parts("value"), parts("value"), seen_by(layout, "keys"), layout.keys.tolist(), *scales))
    found = relation_loss("minilmv2", heads, teacher, student, layout).item()
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-10)


@pytest.mark.parametrize(("method", "heads"), [("minilm", None), ("minilmv2", 3)])
def test_gradients_are_those_of_small_steps(case, method, heads):
    attending, layout = case
    teacher, student = attending(2, 6), attending(2, 3)

    def loss(*projections):
        own = Attending(Projections(*projections), student.heads, student.score_scale, student.query_scale, student.bias)
        return relation_loss(method, heads, teacher, own, layout)

    assert torch.autograd.gradcheck(loss, tuple(student.projections))
    loss(*student.projections).backward()
    assert all(part.grad is None for part in teacher.projections)


def test_padding_moves_nothing(case):
    attending, layout = case
    teacher, student = attending(2, 6), attending(2, 3)
    before = relation_loss("minilmv2", 2, teacher, student, layout)
    for one in (teacher, student):
        for part, rows in zip(one.projections, (layout.queries, layout.keys, layout.keys), strict=True):
            part.data[rows == 0] = 50.0
    torch.testing.assert_close(relation_loss("minilmv2", 2, teacher, student, layout), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["minilm", "minilmv2"])
def test_a_model_is_no_distance_from_itself(case, method):
    attending, layout = case
    one = attending(4, 2)
    loss = relation_loss(method, 4, one, one, layout)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert all(grad.abs().max() < 1e-12 for grad in torch.autograd.grad(loss, list(one.projections)[1:]))


def test_what_is_recorded_is_what_came_last_and_only_inside():
    layers = [nn.Linear(2, 2, bias=False) for _ in range(3)]
    given = torch.ones(1, 2)
    with recorded({"a": tuple(layers)}) as found:
        layers[0](given), layers[1](given)
        assert not found
        layers[2](given), layers[0](2 * given)
    layers[0](5 * given)
    torch.testing.assert_close(found["a"].query, layers[0](2 * given))
    torch.testing.assert_close(found["a"].value, layers[2](given))


def test_heads_and_layers_that_do_not_fit_are_refused():
    assert relation_heads(None, (4, 64), (2, 32), "minilmv2") == 16
    assert relation_heads(None, (4, 64), (4, 32), "minilm") is None
    with pytest.raises(InputError, match="4 heads and the student 2") as error:
        relation_heads(None, (4, 64), (2, 32), "minilm")
    assert "minilmv2" in error.value.fix
    with pytest.raises(InputError, match="16 relation heads do not divide") as error:
        relation_heads(16, (4, 64), (2, 24), "minilmv2")
    assert "divisor of 8" in error.value.fix
    assert [chosen_layer(number, 24) for number in (-1, -4, 0)] == [23, 20, 0]
    with pytest.raises(InputError, match="no layer -5"):
        chosen_layer(-5, 4)
