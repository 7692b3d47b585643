import numpy as np
import pytest

from mengzi_mt.data.token_shards import open_corpus
from mengzi_mt.data.windows import WindowOrder
from mengzi_mt.errors import InputError
from mengzi_mt.pretraining.encoder_batches import make_step
from mengzi_mt.pretraining.encoder_examples import UNKNOWN, EncoderIds, EncoderStream
from mengzi_mt.pretraining.encoder_recipe import ObjectiveSettings

IDS = EncoderIds(0, 1, 2, 3, np.arange(300, 1_500))


def stream_of(folder, seed=0, **objectives):
    corpus = open_corpus(folder)
    order = WindowOrder(corpus, np.ones(corpus.documents, bool), 45, 7)
    return EncoderStream(order, IDS, ObjectiveSettings(**objectives), seed)


def segments_of(example):
    """The original ids of each segment."""
    return [example.original[example.text & (example.segment == number)].tolist() for number in range(example.segment.max() + 1)]


def test_an_example_is_a_function_of_seed_and_position(tagged_corpus):
    stream = stream_of(tagged_corpus, order="nsp", pos=1)
    once, again = stream.examples(0, 20), stream.examples(13, 20)
    for first, second in zip(once[13:], again, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    other = stream_of(tagged_corpus, seed=1, order="nsp", pos=1).examples(0, 20)
    assert any(not np.array_equal(a.chosen, b.chosen) for a, b in zip(once, other, strict=True) if len(a.chosen) == len(b.chosen))


@pytest.mark.parametrize("order", ["none", "sop", "nsp"])
def test_rows_are_framed_and_tags_stay_with_their_tokens(tagged_corpus, order):
    for example in stream_of(tagged_corpus, order=order, pos=1, ner=1).examples(0, 200):
        assert len(example.read) <= 48
        assert example.original[0] == 1
        assert example.original[-1] == 2
        parts = segments_of(example)
        assert example.original.tolist() == [1, *(token for part in parts for token in [*part, 2])]
        assert (example.read[~example.chosen] == example.original[~example.chosen]).all()
        assert not example.chosen[~example.text].any()
        text = example.original[example.text]
        assert (example.pos[example.text] == text % 5).all()
        assert (example.ner[example.text] == text % 3).all()
        assert example.chosen.sum() <= max(2, round(0.15 * example.text.sum()))


def test_swapped_segments_are_those_of_the_document(tagged_corpus):
    """The slow way: look for the two segments in the document, in both orders."""
    stream = stream_of(tagged_corpus, order="sop", whole_words=False)
    corpus = stream.order.corpus
    windows, counts = list(stream.order.windows(0, 300)), {0: 0, 1: 0, UNKNOWN: 0}
    for window, example in zip(windows, stream.examples(0, 300), strict=True):
        whole = corpus.document(window.document)[window.start : window.stop].tolist()
        inner = [s - window.start for s in corpus.sentences(window.document).tolist() if window.start < s < window.stop]
        parts = segments_of(example)
        counts[example.order] += 1
        if example.order == UNKNOWN:
            assert not inner
            assert parts == [whole]
        else:
            first, second = parts if example.order == 0 else parts[::-1]
            assert first + second == whole
            assert len(first) in inner
    assert abs(counts[0] - counts[1]) < 60
    assert counts[0] + counts[1] > 200


def test_the_second_segment_of_another_document(tagged_corpus):
    stream = stream_of(tagged_corpus, order="nsp", whole_words=False)
    corpus = stream.order.corpus
    documents = [corpus.document(number).tolist() for number in range(corpus.documents)]

    def holds(document, part):
        return any(document[at : at + len(part)] == part for at in range(len(document) - len(part) + 1))

    counts = [0, 0]
    for window, example in zip(stream.order.windows(0, 200), stream.examples(0, 200), strict=True):
        if example.order == UNKNOWN:
            continue
        counts[example.order] += 1
        first, second = segments_of(example)
        assert holds(documents[window.document], first)
        if example.order == 0:
            assert holds(documents[window.document], first + second)
        elif len(second) > 2:
            assert not holds(documents[window.document], second)
            assert any(holds(document, second) for document in documents)
    assert min(counts) > 50


def test_untagged_corpora_are_refused_where_tags_are_needed(text_corpus):
    with pytest.raises(InputError, match=r"not tagged.*corpus tag"):
        stream_of(text_corpus).examples(0, 1)
    assert stream_of(text_corpus, whole_words=False).examples(0, 1)[0].pos is None


def test_nsp_of_one_document_says_what_to_do(make_token_corpus):
    folder = make_token_corpus([[[300, 301, 302], [303, 304]]])
    with pytest.raises(InputError, match=r"other document.*sop"):
        stream_of(folder, order="nsp", whole_words=False).examples(0, 20)


def test_batches_hold_every_prediction_once(tagged_corpus):
    examples = stream_of(tagged_corpus, order="sop", pos=1, ner=1).examples(0, 30)
    step = make_step(examples, 150, 0)
    assert len(step.batches) > 5
    assert step.tokens == sum(len(example.read) for example in examples)
    assert step.predictions == {
        "mlm": sum(int(example.chosen.sum()) for example in examples),
        "pos": sum(int(example.text.sum()) for example in examples),
        "ner": sum(int(example.text.sum()) for example in examples),
        "order": sum(example.order != UNKNOWN for example in examples),
        "consistency": 30,
    }
    assert step.text == sum(int(example.text.sum()) for example in examples)
    found = []
    for batch in step.batches:
        assert batch.input_ids.numel() <= 150 or len(batch.input_ids) == 1
        flat = batch.input_ids.flatten()
        assert (flat[batch.tagged].numel(), int(batch.mask.sum())) == (len(batch.pos), batch.tokens)
        found += list(zip(batch.restored.tolist(), batch.originals.tolist(), flat[batch.restored].tolist(), strict=True))
    expected = [(int(t), int(r)) for e in examples for t, r in zip(e.original[e.chosen], e.read[e.chosen], strict=True)]
    assert sorted(pair[1:] for pair in found) == sorted(expected)
