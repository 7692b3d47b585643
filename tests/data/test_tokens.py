import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.tokens import Encoder, Limits, fit_inputs
from mengzi_mt.prompts.rendering import Span

EOS = 1


def example(inputs, spans=(), targets="是"):
    return TextExample(inputs, targets, ("是", "否"), tuple(Span(*span) for span in spans), 1.5, "task", "template", "row")


def parts(*pieces):
    """An example of fixed texts (strings) and shrinkable ones (strings in a list)."""
    text, spans = "", []
    for piece in pieces:
        (content,) = piece if isinstance(piece, list) else (piece,)
        if isinstance(piece, list):
            spans.append((len(text), len(text) + len(content)))
        text += content
    return example(text, spans)


def characters(text):
    return [ord(character) for character in text]


FIXED = st.text("问题选项", max_size=8)
SHRINKABLE = st.text("文章", min_size=1, max_size=60)


@settings(deadline=None)
@given(st.lists(st.tuples(FIXED, SHRINKABLE), max_size=4), FIXED, st.integers(1, 120))
def test_only_shrinkable_text_is_cut_and_only_where_it_must_be(pairs, last, limit):
    whole = parts(*(piece for fixed, span in pairs for piece in (fixed, [span])), last)
    ids, text = fit_inputs(whole, characters, limit, EOS)
    assert text == "".join(map(chr, ids[:-1]))
    fixed = "".join(before for before, _ in pairs) + last
    assert ids[-1] == EOS
    assert len(ids) <= max(limit, len(fixed) + 1)
    assert (text == whole.inputs) == (len(whole.inputs) + 1 <= limit or not pairs)
    assert "".join(character for character in text if character in "问题选项") == fixed


def test_question_and_choices_after_the_passage_survive(tokenizer):
    encoder = Encoder(tokenizer)
    whole = parts("阅读短文：", ["今天天气不错，我们去公园。" * 40], "\n问题：天气如何？选项：好，坏")
    ids, cut = encoder.inputs(whole, 64)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert 56 <= len(ids) <= 64
    assert cut > 0
    assert text.startswith("阅读短文:今天天气不错")
    assert text.endswith("\n问题:天气如何?选项:好,坏")


def test_two_spans_are_cut_in_proportion():
    ids, _ = fit_inputs(parts(["甲" * 80], "|", ["乙" * 40]), characters, 62, EOS)
    text = "".join(map(chr, ids[:-1]))
    assert text.count("甲") == pytest.approx(2 * text.count("乙"), abs=2)
    assert 54 <= len(ids) <= 62


def test_without_spans_nothing_is_cut():
    ids, text = fit_inputs(example("很长的问题" * 20), characters, 10, EOS)
    assert (len(ids), text) == (101, "很长的问题" * 20)


def test_example_that_cannot_fit_is_none(tokenizer):
    encoder = Encoder(tokenizer)
    assert encoder.example(example("很长的问题" * 50), Limits(32, 8)) is None
    assert encoder.example(example("问", targets="很长的答案" * 50), Limits(32, 8)) is None
    assert encoder.example(parts("问题" * 50, ["文"]), Limits(32, 8)) is None


def test_both_sides_end_with_end_of_sequence_and_keep_their_origin(tokenizer):
    encoder = Encoder(tokenizer)
    made = encoder.example(example("天气好吗"), Limits(32, 8))
    assert made.inputs == tokenizer("天气好吗").input_ids
    assert made.targets == tokenizer("是").input_ids == encoder.target("是")
    assert (made.weight, made.task, made.template, made.row_id, made.cut) == (1.5, "task", "template", "row", 0)


def test_empty_text_has_only_the_end(tokenizer):
    assert Encoder(tokenizer).inputs(example(""), 8) == ([EOS], 0)


@pytest.mark.parametrize(("text", "read"), [("天\ud800气", "天\ufffd气"), ("天\udc00", "天\ufffd"), ("\ud83d\ude00好", "😀好")])
def test_lone_surrogates_become_the_replacement_character(tokenizer, text, read):
    encoder = Encoder(tokenizer)
    assert encoder(text) == encoder(read)


def test_answer_that_went_with_the_cut_part_leaves_no_example(tokenizer):
    encoder = Encoder(tokenizer)
    passage = "今天天气不错，我们去公园。" * 20
    lost = parts("短文：", [passage + "园里有一座石桥。"], "问题：园里有什么？")._replace(choices=None, targets="一座石桥")
    assert encoder.example(lost, Limits(64, 16)) is None
    assert encoder.example(lost, Limits(512, 16)) is not None
    kept = parts("短文：", ["园里有一座石桥。" + passage], "问题：园里有什么？")._replace(choices=None, targets="一座石桥")
    assert encoder.example(kept, Limits(64, 16)).cut > 0
    chosen = lost._replace(choices=("一座石桥", "一条河"))  # a choice is given, so it can still be chosen
    assert encoder.example(chosen, Limits(64, 16)) is not None


def test_sentencepiece_itself_encodes_where_its_model_is_at_hand(tokenizer, sample_texts):
    fast, slow = Encoder(tokenizer), Encoder(tokenizer)
    slow._processor = None
    assert fast._processor is not None
    texts = [text for text in sample_texts if text.strip()][:800]
    different = [text for text, a, b in zip(texts, fast.many(texts), slow.many(texts), strict=True) if a != b]
    assert len(different) <= len(texts) // 200  # ties between equally good segmentations
    assert all(sorted(fast(text)) == sorted(slow(text)) for text in different)


def test_tokenizer_without_a_model_file_encodes_itself(tokenizer, tmp_path):
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "spiece.model").unlink(missing_ok=True)
    from mengzi_mt.models.tokenizer import load_tokenizer

    alone = Encoder(load_tokenizer(tmp_path))
    assert alone._processor is None
    assert alone.many(["天气好吗", ""]) == [tokenizer("天气好吗").input_ids[:-1], []]
