import pytest
import torch

from mengzi_mt.data.framed_tokens import FramedEncoder
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.plain_generation import PlainGenerator

INPUTS = ["把这句话缩短：从前有座山，山里有座庙。", "问：首都是哪里？", "短", "列出文中的人名。\n鲁迅和许广平。", "1 + 1 = ?"]


@pytest.fixture
def examples(example):
    return [example(inputs) for inputs in INPUTS]


@torch.inference_mode()
def greedy(model, prompt, steps, end, decoder_only):
    """Greedy decoding by whole forward passes: tokens and their log-probability."""
    tokens, total = [], 0.0
    for _ in range(steps):
        if decoder_only:
            logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits
        else:
            start = model.config.decoder_start_token_id
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *tokens]])).logits
        log_p = logits[0, -1].double().log_softmax(dim=-1)
        tokens.append(int(log_p.argmax()))
        total += float(log_p[tokens[-1]])
        if tokens[-1] == end:
            break
    return tokens, total


@pytest.mark.parametrize("kind", ["GPT2", "Llama", "Bart"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_greedy_decoding_alone(causal_model, bart_model, tokenizer, examples, kind, batch_size):
    decoder_only = kind != "Bart"
    model = causal_model(kind) if decoder_only else bart_model()
    answers = PlainGenerator(model, tokenizer, max_new_tokens=8, batch_size=batch_size, stop=()).generate(examples)
    encoder = FramedEncoder(tokenizer)
    for inputs, answer in zip(INPUTS, answers, strict=True):
        prompt = encoder(inputs) if decoder_only else encoder.framed(inputs)
        tokens, log_p = greedy(model, prompt, 8, tokenizer.eos_token_id, decoder_only)
        assert answer.text == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert answer.log_probability == pytest.approx(log_p, abs=1e-4)
        assert (answer.tokens, answer.finished) == (len(tokens), tokens[-1] == tokenizer.eos_token_id)
    assert len({answer.text for answer in answers}) > 2


def test_an_answer_ends_with_its_line(causal_model, tokenizer, examples):
    """Any text may stop an answer: here pieces of what the model says when nothing stops it."""
    model = causal_model("Llama")
    free = PlainGenerator(model, tokenizer, max_new_tokens=12, stop=()).generate(examples)
    place = next(n for n, answer in enumerate(free) if len(answer.text) > 4)
    stop = free[place].text[3]
    stopped = PlainGenerator(model, tokenizer, max_new_tokens=12, stop=(stop,)).generate(examples)
    assert stopped[place].text == free[place].text.split(stop)[0].strip()
    assert stopped[place].finished
    assert stopped[place].tokens < free[place].tokens
    assert stopped[place].log_probability > free[place].log_probability


def test_decoder_only_models_stop_at_the_end_of_a_line(causal_model, bart_model, tokenizer):
    assert PlainGenerator(causal_model("GPT2"), tokenizer).stop == ("\n",)
    assert PlainGenerator(bart_model(), tokenizer).stop == ()


def test_settings_of_the_checkpoint_do_not_matter(causal_model, tokenizer, examples):
    plain, shaped = causal_model("Llama"), causal_model("Llama")
    shaped.generation_config.update(do_sample=True, temperature=2.0, repetition_penalty=3.0, num_beams=3, max_length=4)
    first, second = (PlainGenerator(model, tokenizer, max_new_tokens=6).generate(examples) for model in (plain, shaped))
    assert first == second


def test_no_ngram_is_repeated(bart_model, tokenizer, examples):
    generator = PlainGenerator(bart_model(), tokenizer, max_new_tokens=12)
    free, barred = generator.generate(examples), generator.adjusted(no_repeat_ngram_size=1).generate(examples)
    assert [one.text for one in free] != [one.text for one in barred]


def test_a_model_without_padding_and_end(causal_model, tokenizer, examples):
    model = causal_model("GPT2")
    model.generation_config.update(eos_token_id=None, pad_token_id=None)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    answers = PlainGenerator(model, tokenizer, max_new_tokens=4, stop=()).generate(examples)
    assert [answer.tokens for answer in answers] == [4] * len(examples)
    assert not any(answer.finished for answer in answers)


def test_constraints_are_refused(causal_model, tokenizer, examples):
    with pytest.raises(InputError, match="only there for T5"):
        PlainGenerator(causal_model("GPT2"), tokenizer).generate(examples, constraint=object())


def test_advance_counts_and_nothing_gives_nothing(causal_model, tokenizer, examples):
    generator, finished = PlainGenerator(causal_model("GPT2"), tokenizer, max_new_tokens=2, batch_size=3), []
    generator.generate(examples, finished.append)
    assert finished == [3, 2]
    assert generator.generate([]) == []
