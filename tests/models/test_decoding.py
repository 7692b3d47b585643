import random

import pytest
import torch

from mengzi_mt.models.decoding import Decoder

END, VOCABULARY = 1, 200
LENGTHS = (3, 4, 9, 9, 10, 12, 30, 31)


def draw(size, seed):
    return [*torch.randint(3, VOCABULARY, (size - 1,), generator=torch.Generator().manual_seed(seed)).tolist(), END]


INPUTS = [draw(length, number) for number, length in enumerate(LENGTHS)]


def relu_model():
    """The first generation of T5: no gate, head scaled and shared."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0
    )
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture(params=["tied", "untied", "relu"])
def model(request, tiny_model):
    """A model whose outputs vary and end at different lengths: random weights, but larger than a fresh model's."""
    model = relu_model() if request.param == "relu" else tiny_model(tied=request.param == "tied", vocabulary=VOCABULARY)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative" in name:
                parameter.normal_(std=3)
            elif parameter.dim() == 2:
                parameter.normal_(std=0.3 if "shared" in name else 2 * parameter.shape[1] ** -0.5)
        model.lm_head.weight[END] *= 1.5
    return model.eval()


def transformers_outputs(model, ids, steps, beams=1, **settings):
    """Tokens, and score where there are beams, of every sequence that is returned."""
    result = model.generate(
        input_ids=torch.tensor([ids]), max_new_tokens=steps, do_sample=False, num_beams=beams, num_return_sequences=beams,
        return_dict_in_generate=True, output_scores=True, **settings,
    )  # fmt: skip
    sequences = [tokens[1:] for tokens in result.sequences.tolist()]
    ended = [tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens) for tokens in sequences]
    return ended, result.sequences_scores.tolist() if beams > 1 else None


@torch.inference_mode()
def log_probability(model, ids, tokens):
    log_p = model(input_ids=torch.tensor([ids]), labels=torch.tensor([tokens])).logits[0].double().log_softmax(1)
    return sum(log_p[place, token].item() for place, token in enumerate(tokens))


@pytest.mark.parametrize("slack", [1.0, 1.25, 20.0])
def test_greedy_outputs_are_those_of_transformers(model, slack):
    outputs = Decoder(model, end=END, steps=24, slack=slack).greedy(INPUTS)
    for ids, output in zip(INPUTS, outputs, strict=True):
        assert [output.tokens] == transformers_outputs(model, ids, 24)[0]
        assert output.log_probability == pytest.approx(log_probability(model, ids, output.tokens), abs=1e-4)
        assert output.finished == (output.tokens[-1] == END)
    assert len({len(output.tokens) for output in outputs}) > 2, "the lengths must differ for this test to say anything"


@pytest.mark.parametrize(("beams", "length_penalty"), [(2, 1.0), (4, 1.0), (3, 0.0), (3, 2.0), (3, -0.5)])
def test_beam_search_is_that_of_transformers(model, beams, length_penalty):
    found = Decoder(model, end=END, steps=20).beam_search(INPUTS, beams, length_penalty)
    for ids, outputs in zip(INPUTS, found, strict=True):
        tokens, scores = transformers_outputs(model, ids, 20, beams, length_penalty=length_penalty)
        assert [output.tokens for output in outputs] == tokens
        ours = [output.log_probability / len(output.tokens) ** length_penalty for output in outputs]
        assert ours == pytest.approx(scores, rel=2e-5, abs=1e-4)
        assert outputs[0].log_probability == pytest.approx(log_probability(model, ids, outputs[0].tokens), abs=1e-4)
        assert [output.finished for output in outputs] == [output.tokens[-1] == END for output in outputs]


class Only:
    """A course: the tokens that a function of those before allows."""

    stopped = False

    def __init__(self, function, before=()):
        self.function, self.before = function, before

    @property
    def allowed(self):
        return self.function(self.before)

    def after(self, token):
        return Only(self.function, (*self.before, token))


def some(before):
    """Some tokens that depend on what was written; the end only after three of them."""
    drawn = random.Random(hash(before)).sample(range(3, VOCABULARY), 12)
    return [*drawn, END] if len(before) >= 3 else drawn


@pytest.mark.parametrize("beams", [1, 3])
def test_constraints_are_those_of_transformers(model, beams):
    decoder, courses = Decoder(model, end=END, steps=10), [Only(some) for _ in INPUTS]
    found = decoder.beam_search(INPUTS, beams, 1.0, courses) if beams > 1 else [[one] for one in decoder.greedy(INPUTS, courses)]

    def allowed(batch, tokens):
        return some(tuple(tokens.tolist()[1:]))

    for ids, outputs in zip(INPUTS, found, strict=True):
        tokens, _ = transformers_outputs(model, ids, 10, beams, prefix_allowed_tokens_fn=allowed)
        assert [output.tokens for output in outputs] == tokens
        assert outputs[0].log_probability == pytest.approx(log_probability(model, ids, outputs[0].tokens), abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 3])
def test_no_ngram_is_repeated_as_in_transformers(model, beams, size):
    decoder = Decoder(model, end=END, steps=20)
    free = decoder.greedy(INPUTS)
    decoder.no_repeat_ngram_size = size
    found = decoder.beam_search(INPUTS, beams) if beams > 1 else [[one] for one in decoder.greedy(INPUTS)]
    for ids, outputs in zip(INPUTS, found, strict=True):
        tokens, _ = transformers_outputs(model, ids, 20, beams, no_repeat_ngram_size=size)
        assert [output.tokens for output in outputs] == tokens
        for output in outputs:
            ngrams = list(zip(*(output.tokens[place:] for place in range(size)), strict=False))
            assert len(ngrams) == len(set(ngrams))
        assert outputs[0].log_probability == pytest.approx(log_probability(model, ids, outputs[0].tokens), abs=2e-4)
    if beams == 1:
        assert [list(decoder.stream(ids)) for ids in INPUTS] == [[t for t in one[0].tokens if t != END] for one in found]
        if size < 3:
            assert [one[0].tokens for one in found] != [one.tokens for one in free], "something must be repeated without it"


def test_constrained_sequences_may_repeat(model):
    decoder = Decoder(model, end=END, steps=10)
    decoder.no_repeat_ngram_size = 1
    again = [Only(lambda before: [5] if len(before) < 4 else [END]) for _ in INPUTS]
    assert {output.tokens for output in decoder.greedy(INPUTS, again)} == {(5, 5, 5, 5, END)}


def test_more_beams_than_outputs_are_allowed(model):
    trie = {(): [5], (5,): [6, END], (5, 6): [END]}
    found = Decoder(model, end=END, steps=10).beam_search(INPUTS, 4, 1.0, [Only(trie.__getitem__) for _ in INPUTS])
    for outputs in found:
        assert {output.tokens for output in outputs} == {(5, END), (5, 6, END)}


@pytest.mark.parametrize("beams", [1, 3])
def test_the_limit_of_tokens(model, beams):
    decoder = Decoder(model, end=END, steps=1)
    for outputs in decoder.beam_search(INPUTS, beams) if beams > 1 else [[one] for one in decoder.greedy(INPUTS)]:
        assert all(len(output.tokens) == 1 and output.finished == (output.tokens == (END,)) for output in outputs)


def test_one_batch_or_many(model):
    decoder = Decoder(model, end=END, steps=24)
    for search in (decoder.greedy, lambda inputs: [found[0] for found in decoder.beam_search(inputs, 3)]):
        together, alone = search(INPUTS), [search([ids])[0] for ids in INPUTS]
        for one, other in zip(together, alone, strict=True):
            assert one.tokens == other.tokens
            assert one.log_probability == pytest.approx(other.log_probability, rel=5e-6, abs=1e-5)


def test_looking_rarely_at_what_is_finished_changes_nothing(model, monkeypatch):
    decoder = Decoder(model, end=END, steps=24)
    expected = decoder.greedy(INPUTS), decoder.beam_search(INPUTS, 3)
    monkeypatch.setattr("mengzi_mt.models.decoding.LEAVE", 0.6)
    decoder.look = 5
    late = decoder.greedy(INPUTS), decoder.beam_search(INPUTS, 3)
    for one, other in zip([expected[0], *expected[1]], [late[0], *late[1]], strict=True):
        assert [output.tokens for output in one] == [output.tokens for output in other]
        expected_log_p = [output.log_probability for output in one]
        assert [output.log_probability for output in other] == pytest.approx(expected_log_p, rel=5e-6, abs=1e-5)


def test_bfloat16_is_near(tiny_model):
    model = tiny_model(tied=False, vocabulary=VOCABULARY).eval()
    exact, rounded = (Decoder(model, precision, end=END, steps=5).greedy(INPUTS) for precision in (torch.float32, torch.bfloat16))
    for ids, output in zip(INPUTS, rounded, strict=True):
        assert output.log_probability == pytest.approx(log_probability(model, ids, output.tokens), rel=0.02)
    assert sum(one.tokens[0] == other.tokens[0] for one, other in zip(exact, rounded, strict=True)) >= len(INPUTS) - 2
