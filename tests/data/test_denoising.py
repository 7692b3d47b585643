from collections import Counter

import numpy as np
import pytest

from mengzi_mt.data.denoisers import Denoiser, restore
from mengzi_mt.data.denoising import (
    Denoising,
    DenoisingStream,
    damage,
    make_denoising,
    mean_one,
    sentinel_ids,
    unigram_surprisal,
)
from mengzi_mt.data.sampling import BLOCK
from mengzi_mt.data.token_shards import open_corpus
from mengzi_mt.data.windows import WindowOrder
from mengzi_mt.denoising_settings import DenoisingSettings
from mengzi_mt.errors import InputError

UL2 = {
    "r3": {"prefix": "[R]"},
    "r8": {"mean_span": 8},
    "s": {"kind": "suffix", "density": 0.25},
    "x3": {"density": 0.5, "weight": 2},
    "p": {"kind": "prefix_lm", "density": 0.5},
}


@pytest.fixture
def settings(text_corpus):
    def make(**changes):
        return DenoisingSettings.model_validate({"corpus": str(text_corpus), "denoisers": UL2, "window": 60, **changes})

    return make


def test_examples_give_their_windows_back(settings, tokenizer, text_corpus):
    stream = make_denoising(settings(), tokenizer, 1, 0).stream
    corpus, prefix = open_corpus(text_corpus), tokenizer("[R]", add_special_tokens=False).input_ids
    made = stream.examples(0, 300)
    assert {example.task for example in made} == {f"denoise_{name}" for name in UL2}
    for example in made:
        document, _, place = example.row_id.partition(":")
        start, stop = map(int, place.split("-"))
        assert (example.inputs[-1], example.targets[-1], example.weight) == (tokenizer.eos_token_id,) * 2 + (1.0,)
        begin = len(prefix) if example.task == "denoise_r3" else 0
        assert example.inputs[:begin] == (prefix if begin else [])
        window = restore(example.inputs[begin:-1], example.targets[:-1], stream.sentinels.tolist())
        assert window == corpus.document(int(document))[start:stop].tolist()
        assert (example.inputs[-2] == sentinel_ids(tokenizer)[0]) == (example.task == "denoise_s") or example.template != "s"


def test_kinds_that_copy_stand_beside_the_others(settings, tokenizer, text_corpus):
    plain = make_denoising(settings(), tokenizer, 1, 0).stream
    kinds = {name: {"kind": name, "tokens": 8, "density": 0.4} for name in ("copy", "beside", "changes")}
    stream = make_denoising(settings(denoisers=UL2 | kinds), tokenizer, 1, 0).stream
    made = stream.examples(0, 400)
    assert {example.template for example in made} == {*UL2, *kinds}
    corpus = open_corpus(text_corpus)
    for example in made:
        document, _, place = example.row_id.partition(":")
        start, stop = map(int, place.split("-"))
        window = corpus.document(int(document))[start:stop].tolist()
        assert example.inputs[-1] == example.targets[-1] == tokenizer.eos_token_id
        given, wanted = example.inputs[:-1], example.targets[:-1]
        if example.template == "copy":
            assert given == wanted and " ".join(map(str, given)) in " ".join(map(str, window))
            assert len(given) == (min(8, len(window) // 2) if len(window) > 3 else len(window))
        elif example.template in kinds and len(window) > 3:
            assert given.count(int(stream.sentinels[-1])) == 1 and set(wanted) <= {*window, *stream.sentinels.tolist()}
    again = make_denoising(settings(denoisers=UL2 | kinds), tokenizer, 1, 0).stream
    assert [e for start in range(0, 400, 9) for e in again.examples(start, min(start + 9, 400))] == made
    assert plain.examples(0, 5) == make_denoising(settings(), tokenizer, 1, 0).stream.examples(0, 5)


def test_kinds_that_copy_are_refused_where_they_do_not_fit(settings):
    with pytest.raises(ValueError, match="two texts of 40 tokens from a window of 60"):
        settings(denoisers={"c": {"kind": "copy", "tokens": 40}})
    with pytest.raises(ValueError, match="takes nothing away"):
        settings(denoisers={"c": {"kind": "copy", "tokens": 8}}, instance={"damage": 1})


def test_an_example_is_a_function_of_its_position(settings, tokenizer):
    one, other = (make_denoising(settings(), tokenizer, 1, 0).stream for _ in range(2))
    whole = one.examples(4_000, 4_200)
    assert [example for start in range(4_000, 4_200, 7) for example in other.examples(start, min(start + 7, 4_200))] == whole
    assert make_denoising(settings(), tokenizer, 2, 0).stream.examples(4_000, 4_010) != whole[:10]


def test_denoisers_are_dealt_by_their_weights_and_counted_exactly(settings, tokenizer):
    stream = make_denoising(settings(), tokenizer, 1, 0).stream
    assert stream.rates == pytest.approx({"denoise_x3": 1 / 3} | {f"denoise_{name}": 1 / 6 for name in UL2 if name != "x3"})
    whole = stream.counts(0, BLOCK)
    assert all(abs(whole[task] - BLOCK * rate) <= 2 for task, rate in stream.rates.items())
    found = Counter(stream.denoisers[n].task for n in stream.chosen(BLOCK - 50, BLOCK + 70).tolist())
    assert found == stream.counts(BLOCK - 50, BLOCK + 70)
    assert stream.examples(5, 5) == []


def test_held_out_documents_are_validated_on_and_not_trained_on(settings, tokenizer):
    made = make_denoising(settings(held_out=0.2), tokenizer, 1, 8)
    kept = {example.row_id.partition(":")[0] for examples in made.validation.values() for example in examples}
    trained = {example.row_id.partition(":")[0] for example in made.stream.examples(0, made.stream.order.count)}
    assert kept
    assert not kept & trained
    assert {task: len(examples) for task, examples in made.validation.items()} == dict.fromkeys(made.stream.tasks, 8)
    assert all(example.task == task for task, examples in made.validation.items() for example in examples)


@pytest.mark.parametrize("share", [0.3, 1.0, 1 / 3])
def test_positions_of_a_run_are_split_by_the_share(share):
    denoising = Denoising(None, share, {}, {})
    for start, stop in ((0, 7), (7, 14), (70_000, 70_007)):
        (low, high), (first, last) = denoising.positions(start, stop)
        assert (high - low) + (last - first) == stop - start
        assert abs((high - low) - share * (stop - start)) <= 1
    assert denoising.positions(0, 7)[0][1] == denoising.positions(7, 14)[0][0]


def test_damage_equals_its_definition():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 40, 30)
    mask = rng.random(lengths.sum()) < 0.4
    mask[np.cumsum(lengths) - lengths] = False
    found = damage(mask, lengths)
    for value, window in zip(found, np.split(mask, np.cumsum(lengths)[:-1]), strict=True):
        stays = [place for place, noise in enumerate(window) if not noise]
        gaps = [min(abs(place - other) for other in stays) for place, noise in enumerate(window) if noise]
        assert value == pytest.approx(sum(d / (1 + d) for d in gaps) / len(window), rel=1e-12)


def test_damage_grows_with_the_share_and_with_long_spans():
    values = damage(np.array([0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1], dtype=bool), np.array([6, 6, 6]))
    assert values[0] < values[1] < values[2]


def test_weights_are_one_on_average_within_the_bounds():
    rng = np.random.default_rng(3)
    values, counts = rng.random(50) ** 6, rng.integers(1, 90, 50)
    weights = mean_one(values, counts, 4.0)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1, rel=1e-12)
    assert weights.max() / weights.min() == pytest.approx(16)
    assert (np.diff(weights[np.argsort(values)]) >= 0).all()
    assert mean_one(np.zeros(3), np.ones(3), 4.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("per_example", [False, True])
def test_damage_weighs_the_examples_of_a_step(settings, tokenizer, per_example):
    made = make_denoising(settings(instance={"damage": 1.0}), tokenizer, 1, 0)
    examples = made.examples(30, 60, per_example)
    sizes = [1 if per_example else len(example.targets) for example in examples]
    mean = sum(e.weight * size for e, size in zip(examples, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(1)
    assert len({example.weight for example in examples}) > 10
    plain = make_denoising(settings(), tokenizer, 1, 0).examples(30, 60, per_example)
    assert [example._replace(weight=1.0) for example in examples] == plain


def test_rare_tokens_become_noise_more_often_with_candidates(settings, tokenizer, text_corpus):
    surprisal = unigram_surprisal(open_corpus(text_corpus), len(tokenizer))
    assert np.exp(-surprisal).sum() == pytest.approx(1)

    def mean(candidates):
        stream = make_denoising(settings(denoisers={"r": {}}, candidates=candidates), tokenizer, 1, 0).stream
        noise = [t for e in stream.examples(0, 200) for t in e.targets[:-1] if t not in set(stream.sentinels.tolist())]
        return surprisal[noise].mean()

    assert mean(8) > mean(1) + 0.1


def test_whole_words_become_noise(make_token_corpus, tokenizer):
    rng = np.random.default_rng(2)
    documents = [[rng.integers(10, 2_000, 50).tolist()] for _ in range(30)]
    flags = [[n % 3 != 1 for n in range(50)] for _ in documents]
    folder = make_token_corpus(documents, flags)
    settings = DenoisingSettings.model_validate({"corpus": str(folder), "window": 50, "whole_words": True, "held_out": 0})
    for example in make_denoising(settings, tokenizer, 1, 0).stream.examples(0, 30):
        tokens = documents[int(example.row_id.partition(":")[0])][0]
        kept = set(example.inputs)
        assert all((tokens[n] in kept) == (tokens[n - 1] in kept) for n in range(1, 50, 3) if tokens.count(tokens[n]) == 1)


def test_what_does_not_fit_is_refused(settings, tokenizer, text_corpus, tmp_path):
    with pytest.raises(InputError, match="no tags"):
        make_denoising(settings(whole_words=True), tokenizer, 1, 0)
    with pytest.raises(InputError, match="500 tokens have 250 spans of noise, the tokenizer has 100 sentinels"):
        make_denoising(settings(window=500, denoisers={"x": {"density": 0.5, "mean_span": 1}}), tokenizer, 1, 0)
    with pytest.raises(InputError, match="no finished corpus"):
        make_denoising(settings(corpus=str(tmp_path)), tokenizer, 1, 0)


def test_sentinels_are_in_their_order(tokenizer):
    found = sentinel_ids(tokenizer)
    assert tokenizer.convert_ids_to_tokens(found) == [f"<extra_id_{number}>" for number in range(100)]
    order = WindowOrder.__new__(WindowOrder)
    order.longest = 60
    assert DenoisingStream(order, [Denoiser("r")], [1.0], found, 1, 0).tasks == ["denoise_r"]
