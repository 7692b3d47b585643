import copy

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mengzi_mt.compression.pruning_recipe import VocabularySettings
from mengzi_mt.compression.pruning_vocabulary import agreement, count_pieces, kept_pieces, trim_model, trim_tokenizer
from mengzi_mt.data.token_shards import open_corpus
from mengzi_mt.data.tokens import Encoder, TokenizedExample, encode_plainly
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import is_tied, save_model
from mengzi_mt.models.tokenizer import SENTINELS

STRANGE = ["</s><pad>", "<extra_id_0>好", "㊗️ 𠀀 ﷽", "  two  blanks\n第二行", "", "Ω" * 3]


@pytest.fixture(scope="module")
def counts(tokenizer, sample_texts):
    found = np.zeros(len(tokenizer), dtype=np.int64)
    for text in sample_texts[:300]:
        found += np.bincount(encode_plainly(tokenizer, text), minlength=len(tokenizer))
    return found


@pytest.fixture(scope="module")
def kept(tokenizer, counts):
    return kept_pieces(tokenizer, counts, VocabularySettings(least=3))


@pytest.fixture(scope="module")
def trimmed(tokenizer_dir, kept, tmp_path_factory):
    return trim_tokenizer(tokenizer_dir, kept, tmp_path_factory.mktemp("trimmed"))


def test_texts_of_kept_pieces_are_cut_as_before_and_their_ids_are_renumbered(tokenizer, trimmed, kept, sample_texts):
    assert len(trimmed) == len(kept) < len(tokenizer)
    place = {old: new for new, old in enumerate(kept)}
    covered = 0
    for text in [*sample_texts, *STRANGE]:
        old, new = encode_plainly(tokenizer, text), encode_plainly(trimmed, text)
        if set(old) <= place.keys():
            covered += 1
            assert new == [place[token] for token in old]
    assert covered > 300


def test_every_text_can_still_be_written(tokenizer, trimmed, sample_texts):
    for text in [*sample_texts[-300:], *STRANGE]:
        assert trimmed.decode(encode_plainly(trimmed, text)) == tokenizer.decode(encode_plainly(tokenizer, text))


def test_special_tokens_bytes_sentinels_and_the_newline_stay(tokenizer, trimmed):
    for tokens in (tokenizer.all_special_tokens, [f"<0x{n:02X}>" for n in range(256)], ["\n"]):
        assert set(tokens) <= trimmed.get_vocab().keys()
    assert trimmed("好").input_ids[-1] == trimmed.eos_token_id
    assert [trimmed.convert_tokens_to_ids(f"<extra_id_{n}>") for n in range(SENTINELS)] == [
        len(trimmed) - 1 - n for n in range(SENTINELS)
    ]
    assert (trimmed.pad_token_id, trimmed.eos_token_id, trimmed.unk_token_id) == (0, 1, 2)


def test_sentencepiece_reads_the_same_ids(trimmed, sample_texts):
    path = f"{trimmed.name_or_path}/spiece.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    assert processor.vocab_size() == len(trimmed) - SENTINELS
    assert all(processor.encode(text) == encode_plainly(trimmed, text) for text in sample_texts[:200])
    assert Encoder(trimmed)._processor is not None


def test_what_is_counted_stays_and_what_is_not_goes(tokenizer, counts, kept):
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    gone = set(range(len(tokenizer))) - set(kept)
    assert gone and all(counts[number] < 3 and len(names[number]) > 1 for number in gone)
    free = sorted(counts[number] for number in kept if len(names[number]) > 1 and counts[number] and number > 259)
    size = len(kept) - len(free) // 2
    fewer = kept_pieces(tokenizer, counts, VocabularySettings(least=3, size=size))
    assert len(fewer) == size and set(fewer) < set(kept)
    assert sorted(counts[list(set(kept) - set(fewer))]) == free[: len(free) // 2]
    with pytest.raises(InputError, match="pieces always stay"):
        kept_pieces(tokenizer, counts, VocabularySettings(size=400))
    bare = kept_pieces(tokenizer, np.zeros(len(tokenizer), dtype=np.int64), VocabularySettings(characters=False))
    assert len(bare) == 3 + 1 + 256 + SENTINELS


def test_pieces_are_counted_in_corpus_and_examples(text_corpus, tokenizer):
    corpus = open_corpus(text_corpus)
    examples = [TokenizedExample([5, 5, 1], [7, 1], 1.0, "a", "t", "r"), None]
    found = count_pieces(len(tokenizer), corpus, examples)
    slow = [0] * len(tokenizer)
    for number in range(corpus.documents):
        for token in corpus.document(number).tolist():
            slow[token] += 1
    for token in (5, 5, 1, 7, 1):
        slow[token] += 1
    assert found.tolist() == slow


@pytest.mark.parametrize("tied", [True, False])
def test_the_trimmed_model_has_the_logits_of_the_kept_pieces(tiny_model, kept, tied, tmp_path):
    model = tiny_model(tied=tied).eval()
    small = copy.deepcopy(model)
    trim_model(small, kept)
    assert is_tied(small) == tied
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(0, len(kept), (2, 9), generator=generator) for _ in range(2))
    old = torch.tensor(kept)
    with torch.no_grad():
        expected = model(input_ids=old[ids], labels=old[labels]).logits[..., old]
        torch.testing.assert_close(small(input_ids=ids, labels=labels).logits, expected)
        save_model(small, tmp_path)
        theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
        torch.testing.assert_close(theirs(input_ids=ids, labels=labels).logits, expected)
    assert theirs.config.vocab_size == len(kept)


def test_the_agreement_counts_texts_and_tokens(tokenizer, trimmed, sample_texts):
    texts = [*sample_texts[:40], *sample_texts[-40:]]
    found = agreement(tokenizer, trimmed, texts)
    pairs = [[t.convert_ids_to_tokens(encode_plainly(t, text)) for t in (tokenizer, trimmed)] for text in texts]
    assert (found.texts, found.same) == (80, sum(old == new for old, new in pairs))
    assert found.covered <= found.same
    assert found.growth == sum(len(new) for _, new in pairs) / sum(len(old) for old, _ in pairs) >= 1


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"[{n}]": n for n in range(300)} | {"[UNK]": 300}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 301
    with pytest.raises(InputError, match="WordLevel tokenizer cannot be trimmed"):
        trim_tokenizer(tmp_path, [0, 1], tmp_path / "out")
