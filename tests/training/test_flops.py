import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from mengzi_mt.training.flops import Work, forward_flops, measure_matmul_peak, training_flops


def make(feed_forward="gated-gelu", tied=True):
    config = T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=2, num_heads=5,
        feed_forward_proj=feed_forward, tie_word_embeddings=tied, decoder_start_token_id=0, dropout_rate=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    return T5ForConditionalGeneration(config)


def causal_half(config, length):
    """FLOPs that a full square of ``length`` decoder tokens costs beyond its causal half, in all layers."""
    return config.num_decoder_layers * 4 * config.num_heads * config.d_kv * (length * length - length * (length + 1) // 2)


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_forward_equals_what_torch_counts(feed_forward):
    model = make(feed_forward)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, 23, dtype=torch.long), labels=torch.ones(1, 7, dtype=torch.long))
    work = Work.of_lengths([(23, 7)])
    assert forward_flops(model.config, work) + causal_half(model.config, 7) == counter.get_total_flops()


def test_training_is_what_torch_counts_but_for_the_inputs_that_need_no_gradient():
    model = make()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, 23, dtype=torch.long), labels=torch.ones(1, 7, dtype=torch.long)).loss.backward()
    expected = training_flops(model.config, Work.of_lengths([(23, 7)])) + 3 * causal_half(model.config, 7)
    assert expected == counter.get_total_flops()


def test_segments_give_the_work_of_their_lengths():
    encoder = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1], [1, 2, 3, 0, 0, 0]])
    decoder = torch.tensor([[1, 2, 2, 2], [1, 1, 0, 0], [1, 2, 3, 3]])
    work = Work.of_segments(encoder, decoder)
    assert work == Work.of_lengths([(3, 1), (2, 3), (6, 2), (1, 1), (1, 1), (1, 2)])
    assert (work.encoder_tokens, work.decoder_tokens) == (14, 10)
    assert (work.encoder_pairs, work.decoder_pairs, work.cross_pairs) == (9 + 4 + 36 + 3, 1 + 6 + 3 + 1 + 1 + 3, 3 + 6 + 12 + 4)
    halves = Work.of_segments(encoder[:1], decoder[:1]) + Work.of_segments(encoder[1:], decoder[1:])
    assert halves == work


def test_no_work():
    assert (
        Work.of_lengths([]) == Work() == Work.of_segments(torch.zeros(0, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))
    )
    assert training_flops(make().config, Work()) == 0


def test_padding_and_packing_cost_nothing():
    apart = Work.of_segments(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), torch.tensor([[1, 0], [1, 0]]))
    packed = Work.of_segments(torch.tensor([[1, 1, 2]]), torch.tensor([[1, 2]]))
    assert apart == packed


def test_measured_peak_is_no_slower_than_a_product_and_leaves_the_random_state():
    state = torch.get_rng_state()
    peak = measure_matmul_peak("cpu", torch.float32, seconds=0.05)
    assert torch.equal(state, torch.get_rng_state())
    assert 1e8 < peak < 1e14
