import math
import random

import pytest
import torch

from mengzi_mt.data.constraints import OneOf, SpanOf
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.models.t5 import load_model
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve

INPUTS = [
    "把这句话缩短：从前有座山，山里有座庙。",
    "问：首都是哪里？",
    "短",
    "写一段广告：这条裙子轻盈飘逸，适合春天穿着，颜色清新，剪裁利落，穿上它就像走进花海。",
    "列出文中的人名。\n鲁迅和许广平。",
    "1 + 1 = ?",
]


@pytest.fixture
def examples(example):
    return [example(inputs) for inputs in INPUTS]


@pytest.fixture
def model(tiny_model):
    """A tiny model whose answers differ in length: its head is spread out and likes the end of sequence."""
    model = tiny_model(tied=False, seed=3).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(4)
        model.lm_head.weight[model.config.eos_token_id].mul_(2)
    return model


@pytest.fixture(scope="module")
def trained():
    """The model of the repository, and its tokenizer."""
    place = resolve("models/mengzi-mt-mini")
    return load_model(place).eval(), load_tokenizer(place)


def one_by_one(model, tokenizer, inputs, length, beams=1):
    ids = tokenizer(inputs, add_special_tokens=False).input_ids
    output = model.generate(
        input_ids=torch.tensor([[*ids, tokenizer.eos_token_id]]), max_new_tokens=length, do_sample=False, num_beams=beams
    )
    return tokenizer.decode(output[0], skip_special_tokens=True).strip()


def log_probability(model, tokenizer, inputs, text):
    """Of the text and end-of-sequence."""
    labels = torch.tensor([tokenizer(text).input_ids])
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokenizer(inputs).input_ids]), labels=labels).logits[0]
    return logits.double().log_softmax(1).gather(1, labels[0][:, None]).sum().item()


def texts_of(generated):
    return [one.text for one in generated]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 6, 32])
def test_texts_equal_transformers_generate_one_by_one(model, tokenizer, examples, batch_size, beams):
    expected = [one_by_one(model, tokenizer, inputs, 12, beams) for inputs in INPUTS]
    generator = Generator(model, tokenizer, max_new_tokens=12, batch_size=batch_size, beams=beams)
    assert texts_of(generator.generate(examples)) == expected
    assert len(set(expected)) > 2


@pytest.mark.parametrize("beams", [1, 3])
def test_batch_size_and_order_do_not_matter(trained, sample_texts, example, beams):
    draw = random.Random(1)
    examples = [example(f"写一句话。{text[: draw.randint(1, 80)]}") for text in draw.sample(sample_texts, 24)]
    runs = []
    for size in (1, 7, 64):
        order = draw.sample(range(24), 24)
        generator = Generator(*trained, max_new_tokens=8, batch_size=size, beams=beams)
        generated = generator.generate([examples[place] for place in order])
        runs.append(dict(zip(order, generated, strict=True)))
    for place in range(24):
        first, *others = (run[place] for run in runs)
        for other in others:
            assert (other.text, other.tokens, other.finished) == (first.text, first.tokens, first.finished)
            assert other.log_probability == pytest.approx(first.log_probability, abs=5e-5)
    assert len({one.tokens for one in runs[0].values()}) > 3


def test_what_comes_with_a_text(model, tokenizer, examples):
    generated = Generator(model, tokenizer, max_new_tokens=8).generate(examples)
    for one in generated:
        assert one.finished or one.tokens == 8
        assert one.candidates == ((one.text, one.log_probability),)
        assert one.seconds > 0 and one.cut == 0 and math.isfinite(one.log_probability)
    longer = Generator(model, tokenizer, max_new_tokens=16).generate(examples)
    for one, more in zip(generated, longer, strict=True):
        assert more.tokens == one.tokens if one.finished else more.tokens > one.tokens


def test_candidates_of_a_beam_search(model, tokenizer, examples):
    for one in Generator(model, tokenizer, max_new_tokens=8, beams=3, length_penalty=0.0).generate(examples):
        assert len(one.candidates) == 3
        assert one.candidates[0] == (one.text, one.log_probability)
        scores = [score for _, score in one.candidates]
        assert scores == sorted(scores, reverse=True)


def test_advance_counts_batches(model, tokenizer, examples):
    finished = []
    Generator(model, tokenizer, max_new_tokens=3, batch_size=4).generate(examples, finished.append)
    assert finished == [4, 2]
    Generator(model, tokenizer, max_new_tokens=3, batch_size=4, beams=2).generate(examples, finished.append)
    assert finished == [4, 2, 2, 2, 2]


def test_an_interruption_passes_through(model, tokenizer, examples):
    def interrupt(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Generator(model, tokenizer, max_new_tokens=3).generate(examples, interrupt)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_choices_with_the_models_own_probability(model, tokenizer, example, beams):
    choices = ("体育新闻", "体育", "财经", "，，")
    examples = [example(inputs, choices) for inputs in INPUTS]
    generator = Generator(model, tokenizer, beams=beams)
    for one, inputs in zip(generator.generate(examples, constraint=OneOf()), INPUTS, strict=True):
        assert one.text in choices and one.finished
        assert one.log_probability == pytest.approx(log_probability(model, tokenizer, inputs, one.text), abs=1e-4)
    given = generator.generate([example(inputs) for inputs in INPUTS], constraint=OneOf(("是",)))
    assert texts_of(given) == ["是"] * len(INPUTS)


def test_with_as_many_beams_as_choices_all_are_ranked(model, tokenizer, example):
    choices = ("体育新闻", "体育", "财经")
    (one,) = Generator(model, tokenizer, beams=8, length_penalty=0.0).generate([example(INPUTS[0], choices)], constraint=OneOf())
    expected = {choice: log_probability(model, tokenizer, INPUTS[0], choice) for choice in choices}
    assert [text for text, _ in one.candidates] == sorted(choices, key=lambda choice: -expected[choice])
    assert [score for _, score in one.candidates] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)


@pytest.mark.parametrize("limit", [3, 40])
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_parts_of_the_text(model, tokenizer, example, limit, beams):
    passages = ["鲁迅（周树人），生于１８８１年。", "😀𠮷", "许广平 和　海婴\n在上海"]
    examples = [example(f"文章：{passage}谁？", shrinkable=[(3, 3 + len(passage), "tail")]) for passage in passages]
    generator = Generator(model, tokenizer, max_new_tokens=limit, beams=beams)
    for one, passage in zip(generator.generate(examples, constraint=SpanOf()), passages, strict=True):
        assert one.text in passage
        assert one.text or limit == 3
    for one, passage in zip(generator.generate(examples, constraint=SpanOf(separator="、")), passages, strict=True):
        assert all(part in passage for part in one.text.split("、"))


@pytest.mark.parametrize("beams", [1, 3])
def test_stop_strings_cut_the_text_before_them(model, tokenizer, examples, beams):
    free = Generator(model, tokenizer, max_new_tokens=10).generate(examples)
    written = max((one.text for one in free), key=len)
    stop = written[len(written) // 2]
    for one, before in zip(
        Generator(model, tokenizer, max_new_tokens=10, stop=[stop, "never written"], beams=beams).generate(examples),
        free,
        strict=True,
    ):
        assert stop not in one.text
        if beams == 1:
            assert one.text == before.text.partition(stop)[0].strip()
            if stop in before.text:
                assert one.finished and one.tokens <= before.tokens
            else:
                assert (one.tokens, one.finished) == (before.tokens, before.finished)


def test_a_stop_string_within_a_constraint(model, tokenizer, example):
    passage = "一，二，三，四，五，六"
    generator = Generator(model, tokenizer, stop=["，"])
    (one,) = generator.generate([example(passage)], constraint=SpanOf())
    assert one.text in passage.split("，") or one.text == ""


def test_nothing_to_generate(model, tokenizer):
    assert Generator(model, tokenizer).generate([]) == []


def test_inputs_empty_long_and_strange(model, tokenizer, example):
    long = "山" * 10_000
    examples = [example(""), example(long, shrinkable=[(0, 10_000, "tail")]), example("山" * 100), example("\ud800"), example("\n")]
    generated = Generator(model, tokenizer, max_input=40, max_new_tokens=4).generate(examples)
    assert len(generated) == 5 and all(math.isfinite(one.log_probability) for one in generated)
    assert [one.cut > 0 for one in generated] == [False, True, False, False, False]
    expected = [one_by_one(model, tokenizer, inputs, 4) for inputs in ("", "山" * 100)]
    assert [generated[0].text, generated[2].text] == expected


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"beams": 0}, {"batch_size": 0}, {"stop": [""]}, {"length_penalty": math.nan}]
)
def test_settings_that_make_no_sense(model, tokenizer, wrong):
    with pytest.raises(InputError):
        Generator(model, tokenizer, **wrong)


def test_settings_are_adjusted_in_a_generator_of_its_own(model, tokenizer):
    generator = Generator(model, tokenizer)
    other = generator.adjusted(max_new_tokens=5, beams=2, no_repeat_ngram_size=3)
    assert (other.decoder.steps, other.beams, other.decoder.no_repeat_ngram_size) == (5, 2, 3)
    assert (generator.decoder.steps, generator.beams, generator.decoder.no_repeat_ngram_size) == (128, 1, 0)
    with pytest.raises(InputError, match="no_repeat_ngram_size is -1"):
        generator.adjusted(no_repeat_ngram_size=-1)


def test_a_constraint_that_allows_nothing(model, tokenizer, example):
    with pytest.raises(InputError, match="no choice"):
        Generator(model, tokenizer).generate([example("一", ())], constraint=OneOf())
    with pytest.raises(InputError, match="copied"):
        Generator(model, tokenizer).generate([example("")], constraint=SpanOf())


def test_bfloat16(model, tokenizer, examples):
    exact, rounded = (
        Generator(model, tokenizer, max_new_tokens=4, precision=p).generate(examples) for p in ("float32", "bfloat16")
    )
    assert [one.log_probability for one in exact] != [one.log_probability for one in rounded]
    for one, other in zip(exact, rounded, strict=True):
        if one.text == other.text:
            assert one.log_probability == pytest.approx(other.log_probability, rel=0.02, abs=0.05)
    assert sum(one.text == other.text for one, other in zip(exact, rounded, strict=True)) >= 4
