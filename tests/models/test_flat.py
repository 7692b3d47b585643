import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mengzi_mt.data.flat import flat_batch, flat_batches
from mengzi_mt.data.tokens import TokenizedExample
from mengzi_mt.models.flat import flat_loss, flat_states

START = 0
SIZES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=9)


@pytest.fixture(params=[True, False], ids=["tied", "untied"], scope="module")
def model(request):
    """A two-layer T5 in float64."""
    from mengzi_mt.models import t5
    from mengzi_mt.models.shapes import Shape

    with pytest.MonkeyPatch.context() as patch:
        shape = Shape(d_model=32, d_kv=8, d_ff=64, layers=2, heads=4, vocabulary=300, tied=request.param)
        patch.setitem(t5.SHAPES, "tiny", shape)
        return t5.build_model("tiny", 300, 0.0, 0).double().eval()


def random_examples(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, 300, (n,), generator=generator).tolist()  # noqa: E731
    return [TokenizedExample(draw(a), draw(b), 0.5 + i % 3, "a", "t", str(i)) for i, (a, b) in enumerate(sizes)]


def plain_loss(model, item):
    logits = model(input_ids=torch.tensor([item.inputs]), labels=torch.tensor([item.targets])).logits[0]
    return functional.cross_entropy(logits, torch.tensor(item.targets), reduction="none")


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, seed=st.integers(0, 2**31), tokens=st.sampled_from([1, 40, 10_000]), recompute=st.booleans())
def test_loss_and_gradient_are_those_of_transformers_alone_on_each_example(model, sizes, seed, tokens, recompute):
    examples = random_examples(sizes, seed)
    total = sum(flat_loss(model, batch, recompute=recompute)[0] for batch in flat_batches(examples, tokens, START))
    alone = sum((plain_loss(model, item) * item.weight).sum() for item in examples)
    assert total.item() == pytest.approx(alone.item(), rel=1e-6)  # softmax is float32 in both
    expected = gradients(model, alone)
    assert (gradients(model, total) - expected).norm() <= 1e-5 * expected.norm()


def test_each_token_loss_comes_back_in_the_order_of_the_batch(model):
    examples = random_examples([(9, 3), (8, 2), (2, 5)], 1)
    _, losses = flat_loss(model, flat_batch(examples, START))
    torch.testing.assert_close(losses, torch.cat([plain_loss(model, item) for item in examples]).detach(), rtol=1e-5, atol=1e-6)


def test_nothing_leaks_from_one_example_into_another(model):
    first, second = random_examples([(9, 3), (9, 4)], 2)
    other = random_examples([(9, 3)], 77)[0]
    with torch.no_grad():
        a, b = (flat_states(model, flat_batch([item, second], START))[3:] for item in (first, other))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_flat_batches_hold_every_example_once_within_their_size():
    examples = random_examples([(5 + 7 * i % 23, 1 + i % 6) for i in range(40)], 3)
    batches = list(flat_batches(examples, 100, START))
    assert all(batch.tokens <= 100 for batch in batches)
    assert sum(len(batch.encoder_ids) for batch in batches) == sum(len(e.inputs) for e in examples)
    assert sum(group.examples for batch in batches for group in batch.groups) == len(examples)
    assert sum(batch.slots for batch in batches) == sum(batch.tokens for batch in batches)
    for batch in batches:
        assert (batch.groups[0].encoder.start, batch.groups[-1].encoder.stop) == (0, len(batch.encoder_ids))
        assert (batch.groups[0].decoder.start, batch.groups[-1].decoder.stop) == (0, len(batch.labels))


def test_decoder_reads_the_target_shifted_within_its_own_example():
    batch = flat_batch(
        [TokenizedExample([9, 1], [5, 6, 1], 2.0, "a", "t", "r"), TokenizedExample([8, 1], [7, 1], 0.5, "a", "t", "r")], 0
    )
    assert batch.decoder_ids.tolist() == [0, 5, 6, 0, 7]
    assert batch.labels.tolist() == [5, 6, 1, 7, 1]
    assert batch.weights.tolist() == [2.0, 2.0, 2.0, 0.5, 0.5]


def test_dropout_acts_in_training_only(model):
    batch = flat_batch(random_examples([(9, 3)], 4), START)
    model.config.dropout_rate = 0.5
    try:
        still = [flat_states(model.eval(), batch) for _ in range(2)]
        moved = [flat_states(model.train(), batch) for _ in range(2)]
    finally:
        model.config.dropout_rate = 0.0
        model.eval()
    assert torch.equal(*still)
    assert not torch.equal(*moved)
