import json
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mengzi_mt import Mengzi
from mengzi_mt.errors import InputError
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.results import Classification, Entities, Keywords, Relation, Span, Text

REVIEWS = ["房间干净，服务员很热情，下次还来。", "盒子压扁了，客服也不理人。", "😀<b>很好</b>", "一般"]


def test_the_class_is_imported_late_and_the_package_quickly():
    code = "import time; t = time.perf_counter(); import mengzi_mt, sys; print(time.perf_counter() - t, 'torch' in sys.modules)"
    seconds, heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy == "False"
    assert float(seconds) < 0.2
    with pytest.raises(ImportError):
        from mengzi_mt import Nothing  # noqa: F401


@torch.inference_mode()
def test_probabilities_are_those_of_a_plain_forward_pass(mengzi):
    """The slow reference: transformers' own model, one choice at a time."""
    model, convention = mengzi.scorers.model, mengzi.scorers.scorer.convention
    result = mengzi.sentiment(REVIEWS[0])
    prompt = f"下面是网购顾客写的一条商品评论：\n{REVIEWS[0]}\n这条评论的情感倾向是正面还是负面？"
    ids = torch.tensor([[*convention.encoder(prompt), 1]])
    sums = []
    for label in ("正面", "负面"):
        target = torch.tensor([[*convention.encoder(label), 1]])
        logits = model(input_ids=ids, labels=target).logits.float().log_softmax(-1)
        sums.append(float(logits.gather(2, target[:, :, None]).sum()))
    expected = torch.tensor(sums).softmax(0).tolist()
    assert list(result.probabilities.values()) == pytest.approx(expected, abs=1e-4)
    assert result.templates == ("polarity_question",)


ARGUMENTS = {
    "similarity": {"text": "怎么换卡", "other": "如何更换银行卡"},
    "financial_relation": {"text": "海天集团收购蓝波科技", "head": "海天集团", "tail": "蓝波科技"},
    "entailment": {"premise": "他每天跑步", "hypothesis": "他从不运动"},
    "answer": {"text": "这座桥建成于1937年，由茅以升设计。", "question": "桥是谁设计的？"},
}
KINDS = {
    "label": Classification,
    "relation": Relation,
    "entities": Entities,
    "mentions": Entities,
    "span": Span,
    "keywords": Keywords,
    "text": Text,
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_answers_with_its_type_and_offsets_into_the_text(mengzi, task):
    text = "昨天张伟在北京大学见到了百度公司的工程师李娜😀，ＡＢＣ１２。"
    row = ARGUMENTS.get(task.name, {"text": text})
    options = {"labels": ["物流", "退款"]} if task.own_labels else {}
    steps = {} if task.kind in ("label", "relation") else {"max_new_tokens": 24}
    [result] = mengzi.predict(task.name, [row], **options, **steps)
    assert type(result) is KINDS[task.kind]
    assert json.loads(json.dumps(result.to_dict(), ensure_ascii=False))["task"] == task.name
    if isinstance(result, Classification):
        assert list(result.probabilities) == list(task.labels or ("物流", "退款"))
        assert sum(result.probabilities.values()) == pytest.approx(1)
        assert result.probability == max(result.probabilities.values()) == result.probabilities[result.label]
    if isinstance(result, Entities):
        assert all(row["text"][one.start : one.end] == one.text for one in result.entities)
        assert {one.type for one in result.entities} <= {*task.labels, "姓名", "公司"}
    if isinstance(result, Span):
        assert result.places and all(row["text"][start:end] for start, end in result.places)
        assert row["text"][result.start : result.end] == result.text


def test_a_list_gives_what_its_texts_give_alone_in_order(mengzi):
    together = mengzi.sentiment(REVIEWS)
    alone = [mengzi.sentiment(text) for text in REVIEWS]
    assert [one.label for one in together] == [one.label for one in alone]
    assert [one.probability for one in together] == pytest.approx([one.probability for one in alone], abs=1e-5)
    assert mengzi.sentiment([]) == []
    names = mengzi.entities(REVIEWS)
    assert [one.answer for one in names] == [mengzi.entities(text).answer for text in REVIEWS]


def test_one_text_against_many(mengzi):
    found = mengzi.similarity("怎么换卡", ["如何更换银行卡", "今天下雨吗"])
    assert len(found) == 2
    assert found[1].probability == pytest.approx(mengzi.similarity("怎么换卡", "今天下雨吗").probability, abs=1e-5)


def test_templates_vote(mengzi):
    three = mengzi.sentiment(REVIEWS[0], templates=3, vote="majority")
    names = TASKS["sentiment"].template_names()[:3]
    assert three.templates == tuple(names)
    votes = [mengzi.sentiment(REVIEWS[0], templates=name).label for name in names]
    assert three.label == max(set(votes), key=votes.count)
    assert mengzi.entities(REVIEWS[0], templates=["all_pairs", "role_news_indexer"]).templates == ("all_pairs", "role_news_indexer")


def test_own_labels_are_scored_less_half_of_what_they_get_without_a_text(mengzi):
    labels = ["物流", "退款退货"]
    template = TASKS["classify"].choose(1)[0]
    sums = []
    for text in ("快递三天没到", ""):
        example, _ = mengzi._example(TASKS["classify"], template, {"text": text}, 0, tuple(labels))
        sums.append(torch.tensor(mengzi.scorers.scorer.score([example])[0].log_probabilities))
    expected = (sums[0] - sums[1] / 2).softmax(0).tolist()
    assert list(mengzi.classify("快递三天没到", labels).probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_any_labels_and_own_words(mengzi):
    found = mengzi.classify(REVIEWS, ["服务", "{{ 7 * 7 }}", "物流|||包装"])
    assert all(list(one.probabilities) == ["服务", "{{ 7 * 7 }}", "物流|||包装"] for one in found)
    own = mengzi.classify("快递三天没到", ["物流", "退款"], prompt="“{{ text }}”说的是{{ answer_choices | join('还是') }}？")
    assert list(own.probabilities) == ["物流", "退款"] and own.templates == ("prompt",)
    with pytest.raises(InputError, match="does not show the text"):
        mengzi.classify("快递", ["物流", "退款"], prompt="是什么？")
    with pytest.raises(InputError, match="own labels"):
        mengzi.predict("sentiment", [{"text": "好"}], labels=["好", "坏"])


def test_templates_of_the_registry_by_name(mengzi):
    row = {"sentence1": "他在跑步", "sentence2": "他没有动"}
    found = mengzi.apply("ocnli", [row, row], "infer_can_question")
    assert [list(one.probabilities) for one in found] == [["能", "不确定", "不能"]] * 2
    assert isinstance(mengzi.apply("eprstmt", {"label": 0}, "write_review", max_new_tokens=4), Text)
    with pytest.raises(InputError, match="no template 'nothing'"):
        mengzi.apply("ocnli", row, "nothing")
    with pytest.raises(InputError, match="does not have"):
        mengzi.apply("ocnli", {"sentence1": "他"})


def test_generation_streams_the_text_that_it_gives(mengzi):
    for prompt in ("请为这件商品写一段推荐语：白色棉麻连衣裙", "把下面的英文句子翻译成中文。\n英文：I see 😀.\n中文："):
        pieces = list(mengzi.stream(prompt, max_new_tokens=40))
        assert "".join(pieces) == mengzi.generate(prompt, max_new_tokens=40).text
        assert all(pieces)
    assert "".join(mengzi.stream_task("title", text="本文研究公园。")) == mengzi.title("本文研究公园。").text
    with pytest.raises(InputError, match="no free text"):
        mengzi.stream_task("sentiment", text="好")


def test_a_stream_ends_before_a_stop_text(mengzi):
    prompt = "请为这件商品写一段推荐语：白色棉麻连衣裙"
    whole = mengzi.generate(prompt, max_new_tokens=40).text
    middle = len(whole) // 2
    for stop in ([whole[middle]], [whole[middle : middle + 3]], [whole[middle : middle + 2] + "䶮", whole[-1]], ["䶮"]):
        wanted = mengzi.generate(prompt, max_new_tokens=40, stop=stop).text
        assert wanted == whole[: min((place for text in stop if (place := whole.find(text)) >= 0), default=None)].strip()
        assert "".join(mengzi.stream(prompt, max_new_tokens=40, stop=stop)) == wanted


@pytest.mark.parametrize(
    ("text", "stop", "pieces"),
    [
        ("好的。\n完", ["\n"], "好的。"),
        ("好 \n\n 完", ["\n\n"], "好"),
        ("\n\n好", ["\n\n"], ""),
        ("甲乙甲乙丙丁", ["甲乙丙"], "甲乙"),
        ("甲乙甲乙", ["甲乙丙"], "甲乙甲乙"),
        ("价ＡＢ", ["ＡＢ"], "价"),
    ],
)
def test_what_begins_a_stop_text_is_kept_back(mengzi, monkeypatch, text, stop, pieces):
    generator = mengzi.scorers.generator.adjusted(stop=stop)
    written = [generator.pieces.normalise(one) if one == "Ａ" or one == "Ｂ" else one for one in text]
    monkeypatch.setattr(generator.decoder, "stream", lambda inputs: iter(range(len(written))))
    monkeypatch.setattr(generator.pieces, "of", lambda number: written[number].encode())
    example, _ = mengzi._free("x", None, "here")
    found = list(generator.stream(example))
    assert "".join(found) == pieces and all(found)


def test_a_stream_never_ends_inside_of_a_character(mengzi, monkeypatch):
    generator = mengzi.scorers.generator
    ids = generator.encoder(" 好𠮷😀 \n 完 ")
    assert len(ids) > 9  # rare characters are spelled in bytes
    monkeypatch.setattr(generator.decoder, "stream", lambda inputs: iter(ids))
    example, _ = mengzi._free("x", None, "here")
    pieces = list(generator.stream(example))
    assert "".join(pieces) == "好𠮷😀 \n 完"
    assert not any("\ufffd" in piece for piece in pieces)


def test_beams_and_stops(mengzi):
    found = mengzi.generate("写一句话：", beams=3, max_new_tokens=8)
    assert len(found.candidates) == 3 and found.candidates[0].text == found.text
    whole = mengzi.generate("为白色连衣裙写一段推荐语：", max_new_tokens=20).text
    assert (
        mengzi.generate("为白色连衣裙写一段推荐语：", max_new_tokens=20, stop=[whole[-1]]).text
        == whole.partition(whole[-1])[0].strip()
    )


def test_texts_repeat_nothing_unless_they_are_let(mengzi, monkeypatch):
    asked, adjusted = [], mengzi.scorers.generator.adjusted

    def recorded(**settings):
        asked.append(settings["no_repeat_ngram_size"])
        return adjusted(**settings)

    monkeypatch.setattr(mengzi.scorers.generator, "adjusted", recorded)
    for call in (mengzi.title, mengzi.keywords, mengzi.entities, mengzi.comment_object, mengzi.generate):
        call("一种新的图像去噪方法。", max_new_tokens=4)
        call("一种新的图像去噪方法。", max_new_tokens=4, no_repeat_ngram_size=2)
    mengzi.apply("csl_title", {"abstract": "一种新的图像去噪方法。"}, max_new_tokens=4, no_repeat_ngram_size=5)
    list(mengzi.stream_task("title", text="一种新的图像去噪方法。", max_new_tokens=4))
    list(mengzi.stream("一种新的图像去噪方法。", max_new_tokens=4))
    assert asked == [3, 2, 3, 2, 0, 2, 0, 2, 0, 2, 5, 3, 0]
    with pytest.raises(InputError, match="no_repeat_ngram_size is -1"):
        mengzi.title("一种新的图像去噪方法。", no_repeat_ngram_size=-1)


def test_a_text_that_is_too_long_is_cut_and_says_so(mengzi):
    [short, long] = mengzi.answer(["桥是茅以升设计的。", "桥是茅以升设计的。" + "啊" * 100_000], "谁设计的？")
    assert short.cut == 0
    assert 99_000 < long.cut < 100_000
    assert mengzi.entities("张伟，" * 30_000).cut > 80_000
    assert mengzi.sentiment("好" * 100_000).cut > 90_000
    assert mengzi.similarity("怎么换卡", "卡" * 100_000).cut > 90_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sentiment(""), "empty"),
        (lambda m: m.sentiment(["好", 5]), "Expected a text"),
        (lambda m: m.sentiment(None), "missing"),
        (lambda m: m.predict("sentimnet", [{"text": "好"}]), "no downstream task"),
        (lambda m: m.sentiment("好", templates=99), "templates"),
        (lambda m: m.sentiment("好", vote="coin"), "Unknown vote"),
        (lambda m: m.classify("好", ["甲", "甲"]), "more than once"),
        (lambda m: m.classify("好", ["Ａ甲", "A甲"]), "same tokens"),
        (lambda m: m.translation("好", "zh", "klingon"), "no translation"),
        (lambda m: m.title("好", max_new_tokens=0), "max_new_tokens is 0"),
        (lambda m: m.generate(["好", ""]), "empty"),
        (lambda m: m.generate("好", stop=[""]), "stop string"),
    ],
)
def test_bad_calls_say_what_is_wrong(mengzi, call, message):
    with pytest.raises(InputError, match=message):
        call(mengzi)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), min_size=1, max_size=60))
def test_any_text_gives_a_result_or_says_that_it_is_empty(mengzi, text):
    calls = (
        lambda: mengzi.sentiment(text),
        lambda: mengzi.entities(text, max_new_tokens=12),
        lambda: mengzi.person_names(text, max_new_tokens=12),
        lambda: mengzi.comment_object(text, max_new_tokens=8),
    )
    for call in calls:
        try:
            result = call()
        except InputError as error:
            assert "empty" in error.what or "nothing that could be copied" in error.what
            continue
        for one in getattr(result, "entities", ()):
            assert text[one.start : one.end] == one.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "nothing"}, "device"),
        ({"dtype": "float16"}, "float16"),
        ({"backend": "tensorrt"}, "Unknown backend"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "onnx has no type"),
        ({"backend": "ctranslate2", "dtype": "int4"}, "ctranslate2 has no type"),
        ({"max_input": 3}, "max_input=3"),
        ({"model": "/nowhere"}, "does not exist"),
    ],
)
def test_what_cannot_be_loaded(options, message):
    with pytest.raises(InputError, match=message):
        Mengzi.load(**{"device": "cpu", **options})


def test_the_shipped_model_has_a_name(mengzi):
    assert Mengzi.load("mengzi-mt-mini", device="cpu").name == mengzi.name


def test_without_a_shipped_model_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("mengzi_mt.sdk.loading.resource_dir", lambda kind: tmp_path)
    with pytest.raises(InputError, match="none is shipped") as error:
        Mengzi.load()
    assert "folder or a hub name" in error.value.fix


def test_bfloat16_answers_alike(mengzi):
    rounded = Mengzi.load(device="cpu", dtype=torch.bfloat16, backend="torch")
    one, other = mengzi.sentiment(REVIEWS[0]), rounded.sentiment(REVIEWS[0])
    assert one.label == other.label and one.probability == pytest.approx(other.probability, abs=0.05)


def test_a_model_without_constraints_answers_freely(tmp_path, tokenizer):
    """A decoder-only model: choices are ranked, answers written without constraints, streams come whole."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=2_400, n_positions=600, bos_token_id=2, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    other = Mengzi.load(tmp_path, device="cpu", max_input=256)
    assert other.sentiment("房间干净").label in ("正面", "负面")
    assert isinstance(other.entities("张伟在北京", max_new_tokens=6), Entities)
    assert "".join(other.stream("你好", max_new_tokens=5)) == other.generate("你好", max_new_tokens=5).text
