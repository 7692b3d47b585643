import lzma
import unicodedata

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mengzi_mt.data.corpus import read_texts
from mengzi_mt.errors import InputError, RunError
from mengzi_mt.models.tokenizer import EOS, PAD, SENTINELS, UNK, load_tokenizer, train_tokenizer

VARIED = [
    "今天天气不错。",
    "第一行\n第二行\n\n末行\n",
    "emoji 😀👨‍👩‍👧 与生僻字𠮷龘",
    "全角：ＡＢＣ，１２３！？（括号）",
    "几个  空格   在    一起",
    " 前后有空格 ",
    "",
    "　全角空格　",
    "mixed 中英 text, with-hyphens & symbols %$#",
    "①②③ ㈱ ½ ﬁ",
]
ANY = st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"])
TEXTS = st.text(st.sampled_from("今天的我 　，。\n\tAb１Ｂ😀é") | ANY)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.fixture(scope="module")
def processor(tokenizer_dir):
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_dir / "spiece.model"))


@pytest.mark.parametrize("text", VARIED)
def test_ids_are_sentencepieces_own(tokenizer, processor, text):
    assert ids(tokenizer, text) == processor.encode(text)


def test_ids_of_the_samples_are_sentencepieces_own(tokenizer, processor, sample_texts):
    assert [ids(tokenizer, text) for text in sample_texts] == processor.encode(sample_texts)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_ids_of_any_text_are_sentencepieces_own(tokenizer, processor, text):
    assert ids(tokenizer, text) == processor.encode(text)


@pytest.mark.parametrize("text", VARIED)
def test_decoding_gives_the_text_back_up_to_normalisation(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == unicodedata.normalize("NFKC", text)


def test_unknown_characters_are_spelled_in_bytes(tokenizer):
    assert UNK not in ids(tokenizer, "😀𠮷龘")
    assert tokenizer.convert_ids_to_tokens(ids(tokenizer, "😀")) == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]


def test_special_pieces_stand_where_t5_has_them(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (PAD, EOS, UNK)
    sentinels = [f"<extra_id_{number}>" for number in range(SENTINELS)]
    assert tokenizer.convert_tokens_to_ids(sentinels) == [len(tokenizer) - 1 - number for number in range(SENTINELS)]
    assert len(tokenizer) == 2_400
    assert ids(tokenizer, "天<extra_id_0>气")[1] == len(tokenizer) - 1


def test_end_of_sequence_is_appended(tokenizer):
    assert tokenizer("天气").input_ids == [*ids(tokenizer, "天气"), EOS]
    assert tokenizer("天", "气").input_ids == [*ids(tokenizer, "天"), EOS, *ids(tokenizer, "气"), EOS]
    assert tokenizer.decode(tokenizer("天气").input_ids, skip_special_tokens=True) == "天气"


def test_transformers_loads_and_saves_it_unchanged(tokenizer, tokenizer_dir, tmp_path):
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert [again(text).input_ids for text in VARIED] == [tokenizer(text).input_ids for text in VARIED]


def test_hub_layout_with_only_the_sentencepiece_model_loads(tokenizer_dir, tmp_path):
    (tmp_path / "spiece.model").write_bytes((tokenizer_dir / "spiece.model").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    loaded = load_tokenizer(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (PAD, EOS, 2_400)
    assert loaded("今天天气").input_ids[-1] == EOS


def test_training_is_deterministic(tokenizer_dir, tmp_path, sample_texts):
    train_tokenizer(sample_texts, tmp_path, 2_400, character_coverage=0.98, threads=1)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tokenizer_dir / "tokenizer.json").read_bytes()


def test_too_little_text_is_a_run_error_unless_partial(tmp_path):
    texts = ["今天天气不错", "明天也是好天气"]
    with pytest.raises(RunError, match="could not be trained") as caught:
        train_tokenizer(texts, tmp_path, 20_000, threads=1)
    assert "smaller --vocabulary" in caught.value.fix
    assert len(train_tokenizer(texts, tmp_path, 20_000, threads=1, partial=True)) < 20_000


@pytest.mark.parametrize("files", [{}, {"config.json": '{"model_type": "t5"}'}, {"tokenizer.json": "{"}])
def test_folder_without_a_tokenizer_is_refused(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_corpus_files_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("甲\n乙\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "丙\\n丁"}\n', encoding="utf-8")
    with lzma.open(tmp_path / "c.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write('{"text": "戊"}\n')
    assert list(read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "c.jsonl.xz"])) == ["甲", "乙", "丙\n丁", "戊"]


@pytest.mark.parametrize("line", ["{", '{"txt": "甲"}', '["甲"]', "3", '{"text": null}', '{"text": 3}'])
def test_bad_line_is_named(tmp_path, line):
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"text": "甲"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(read_texts([path]))
    assert caught.value.where == f"{path}, line 2"


def test_unreadable_corpus_file_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("甲".encode("gb18030"))
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "damaged.txt.xz").write_bytes(b"no archive")
    (tmp_path / "cut.txt.xz").write_bytes(lzma.compress("甲乙丙".encode())[:-8])
    for name in ("absent.txt", "latin.txt", "folder.txt", "damaged.txt.xz", "cut.txt.xz"):
        with pytest.raises(InputError) as caught:
            list(read_texts([tmp_path / name]))
        assert caught.value.where == str(tmp_path / name)


def test_no_text_becomes_a_special_token(tokenizer):
    from mengzi_mt.data.tokens import Encoder

    encode = Encoder(tokenizer)
    special = set(tokenizer.all_special_ids)
    for text in ("甲</s>乙", "<pad><unk>", "<extra_id_0>"):
        ids = encode(text)
        assert not special & set(ids)
        assert tokenizer.decode(ids) == text


def test_a_bad_corpus_line_is_named_wherever_it_stands(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "第一行没有问题"}\n' * 50 + "{broken\n", encoding="utf-8")
    with pytest.raises(InputError, match="text") as caught:
        train_tokenizer(read_texts([path]), tmp_path / "out", 600)
    assert caught.value.where == f"{path}, line 51"
