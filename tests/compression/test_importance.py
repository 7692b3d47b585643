"""Importance against the formula, one weight after the other."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from mengzi_mt.compression.importance import FirstOrder, layer_scores, unit_scores

STEPS = 3


def draw(seed, shape):
    return torch.randint(3, 50, shape, generator=torch.Generator().manual_seed(seed))


def losses(model):
    """A loss a step, as the model's own ``forward`` gives it."""
    for step in range(STEPS):
        yield model(input_ids=draw(step, (2, 7)), labels=draw(10 + step, (2, 7))).loss


def tiny_t5(gated):
    config = T5Config(
        vocab_size=50, d_model=8, d_kv=4, d_ff=6, num_layers=2, num_heads=2, dropout_rate=0.0, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def tiny_bert():
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, max_position_embeddings=16
    )
    return BertForMaskedLM(config)


@pytest.fixture(params=["gated", "relu", "bert"])
def model(request):
    torch.manual_seed(0)
    made = tiny_bert() if request.param == "bert" else tiny_t5(request.param == "gated")
    return made.double().eval()


@pytest.fixture
def measured(model):
    found = FirstOrder(model)
    for loss in losses(model):
        model.zero_grad()
        loss.backward()
        found.add()
    return found.importance()


@pytest.fixture
def expected(model):
    """|w · mean |g||, weight by weight in float64."""
    sums = {name: torch.zeros_like(value, requires_grad=False) for name, value in model.named_parameters()}
    for loss in losses(model):
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for name, grad in zip(sums, grads, strict=True):
            if grad is not None:
                sums[name] += grad.abs()
    return {name: (value.detach() * sums[name] / STEPS).abs() for name, value in model.named_parameters()}


def looped(weights, chosen):
    """The sum over places (row, column) of a matrix, one after the other."""
    return sum(weights[row][column] for row, column in chosen)


def names(model):
    """For each attention its output, and for each feed-forward layer what goes in and out."""
    if model.config.model_type == "bert":
        for layer in range(2):
            start = f"bert.encoder.layer.{layer}"
            yield f"{start}.attention", f"{start}.attention.output.dense", None
            yield f"{start}.intermediate", f"{start}.output.dense", [f"{start}.intermediate.dense"]
        return
    inner = ["wi_0", "wi_1"] if model.config.is_gated_act else ["wi"]
    for stack, parts in (("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"])):
        for block in range(2):
            for number, part in enumerate(parts):
                name = f"{stack}.block.{block}.layer.{number}.{part}"
                yield name, f"{name}.o", None
            name = f"{stack}.block.{block}.layer.{len(parts)}.DenseReluDense"
            yield name, f"{name}.wo", [f"{name}.{matrix}" for matrix in inner]


def test_units_score_as_the_formula_says(model, measured, expected):
    scores = unit_scores(model, measured)
    seen = set()
    for name, out, inner in names(model):
        seen.add(name)
        written = expected[f"{out}.weight"].tolist()
        if inner is None:
            wanted = [looped(written, [(row, head * 4 + i) for row in range(8) for i in range(4)]) for head in range(2)]
        else:
            wanted = [
                looped(written, [(row, neuron) for row in range(8)])
                + sum(looped(expected[f"{one}.weight"].tolist(), [(neuron, column) for column in range(8)]) for one in inner)
                for neuron in range(6)
            ]
        assert scores[name].tolist() == pytest.approx(wanted, rel=1e-5)
        assert len(set(scores[name].tolist())) > 1
    assert seen == scores.keys()


def test_layers_score_the_sum_of_their_weights_but_for_the_shared_bias(model, measured, expected):
    scores = layer_scores(model, measured)
    bert = model.config.model_type == "bert"
    for stack, found in scores.items():
        for number, score in enumerate(found):
            start = f"bert.encoder.layer.{number}." if bert else f"{stack}.block.{number}."
            wanted = sum(float(v.sum()) for k, v in expected.items() if k.startswith(start) and "relative" not in k)
            assert score == pytest.approx(wanted, rel=1e-5)


def test_the_sign_of_a_gradient_does_not_matter_and_its_size_does():
    torch.manual_seed(0)
    model = tiny_t5(True)
    found = FirstOrder(model)
    weight = model.encoder.block[1].layer[1].DenseReluDense.wo.weight
    for sign in (1.0, -1.0):  # gradients that cancel are no sign of unimportance
        weight.grad = torch.full_like(weight, sign)
        found.add()
    torch.testing.assert_close(found.importance()["encoder.block.1.layer.1.DenseReluDense.wo.weight"], weight.detach().abs())
