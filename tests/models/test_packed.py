import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mengzi_mt.data.collate import collate
from mengzi_mt.data.packing import PackedRow
from mengzi_mt.data.tokens import TokenizedExample
from mengzi_mt.models.cross_entropy import LossSettings
from mengzi_mt.models.packed import encode, head, packed_loss, segment_mask

PAD = START = 0
ROW = (40, 24)
SIZES = st.lists(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 6)), min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request, tiny_model):
    return tiny_model(tied=request.param, vocabulary=200)


def example(inputs, targets, weight=1.0):
    return TokenizedExample(list(inputs), list(targets), weight, "task", "template", "row")


def rows_of(groups):
    return [PackedRow(*ROW, list(group)) for group in groups]


def random_rows(sizes, seed):
    draw = torch.Generator().manual_seed(seed)
    ids = lambda length: torch.randint(2, 200, (length,), generator=draw).tolist()  # noqa: E731
    return rows_of([[example(ids(a), ids(b)) for a, b in group] for group in sizes])


def plain_loss(model, item):
    """The example's summed loss, alone and through the library's own forward pass."""
    output = model(input_ids=torch.tensor([item.inputs]), labels=torch.tensor([item.targets]))
    return output.loss * len(item.targets)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, seed=st.integers(0, 2**31))
def test_packed_loss_and_gradient_are_those_of_the_examples_alone(model, sizes, seed):
    model.eval()
    rows = random_rows(sizes, seed)
    packed = packed_loss(model, collate(rows, PAD, START))[0]
    alone = sum(plain_loss(model, item) for row in rows for item in row.examples)
    assert packed.item() == pytest.approx(alone.item(), rel=1e-5)
    expected = gradients(model, alone)
    assert (gradients(model, packed) - expected).norm() <= 1e-4 * expected.norm()


def losses_of_second(model, first, second):
    batch = collate(rows_of([[first, second]]), PAD, START)
    with torch.no_grad():
        return packed_loss(model.eval(), batch)[1][len(first.targets) :]


@pytest.mark.parametrize(
    "first", [example([5, 6, 9], [7, 8, 3]), example([15, 16, 17], [7, 8, 1]), example([15, 6, 7], [9, 18, 3])]
)
def test_nothing_leaks_from_one_example_into_the_next(model, first):
    second = example([9, 10, 1], [11, 12, 1])
    expected = losses_of_second(model, example([5, 6, 9], [7, 8, 1]), second)
    torch.testing.assert_close(losses_of_second(model, first, second), expected, rtol=0, atol=1e-6)
    assert expected.sum().item() == pytest.approx(plain_loss(model, second).item(), rel=1e-5)


def test_length_of_the_row_does_not_matter(model):
    item = example([5, 6, 7, 1], [8, 9, 1])
    short, long = PackedRow(4, 3, [item]), PackedRow(40, 24, [item])
    with torch.no_grad():
        a, b = (packed_loss(model.eval(), collate([row], PAD, START))[1] for row in (short, long))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_padding_gets_finite_states(model):
    batch = collate(random_rows([[(3, 2)]], 0), PAD, START)
    assert torch.isfinite(encode(model, batch.encoder_ids, batch.encoder_segments)).all()


def test_masks_are_the_documented_picture():
    queries = torch.tensor([[1, 1, 2, 0]])
    keys = torch.tensor([[1, 2, 2]])
    seen = lambda mask: (mask[:, 0] == 0).int().tolist()  # noqa: E731
    assert seen(segment_mask(queries, keys)) == [[[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]]
    causal = segment_mask(queries[:, :3], queries[:, :3], causal=True)
    assert causal.shape == (1, 1, 3, 3)
    assert seen(causal) == [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]


def test_weights_and_smoothing_follow_the_targets(model):
    rows = rows_of([[example([5, 1], [6, 1], 2.0), example([7, 1], [8, 9, 1], 0.5)]])
    batch = collate(rows, PAD, START)
    with torch.no_grad():
        total, losses = packed_loss(model.eval(), batch)
        smoothed, same = packed_loss(model, batch, LossSettings(label_smoothing=0.1))
    weights = torch.tensor([2.0, 2.0, 0.5, 0.5, 0.5])
    assert losses.dtype == torch.float32 and losses.shape == (batch.target_tokens,)
    torch.testing.assert_close(total, (losses * weights).sum())
    torch.testing.assert_close(losses, same)
    assert not torch.allclose(total, smoothed)


def test_tied_head_scales_and_an_untied_one_does_not(model):
    states = torch.randn(3, 32)
    scale = 32**-0.5 if model.config.scale_decoder_outputs else 1.0
    torch.testing.assert_close(head(model, states), scale * states @ model.lm_head.weight.T)
