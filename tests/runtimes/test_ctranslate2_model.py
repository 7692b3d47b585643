import subprocess
import sys

import pytest
import torch

from mengzi_mt.data.constraints import OneOf, StopAt
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.pieces import Pieces
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError
from mengzi_mt.models.decoding import Decoder
from mengzi_mt.runtimes.ctranslate2_model import CTranslate2Model, vocabulary_of, write_ctranslate2
from mengzi_mt.runtimes.shapes import check_uniform

from .conftest import CHOICES, drawn_inputs, examples_of, flat, torch_scores

pytest.importorskip("ctranslate2")


def rows_of(inputs):
    return [(ids, choice) for place, ids in enumerate(inputs) for choice in CHOICES[place % 3]]


@pytest.mark.parametrize("tied", [True, False])
def test_float32_is_torch(tied, make_model, tokenizer, tmp_path):
    model = make_model(tied)
    inputs = drawn_inputs([4, 9, 9, 30, 150])
    scores, greedy = flat(torch_scores(model, examples_of(inputs))), Decoder(model, end=1, steps=9).greedy(inputs)
    write_ctranslate2(model, tokenizer, tmp_path, "float32")
    runtime = CTranslate2Model(tmp_path, tokenizer, "float32", steps=9)
    found = torch.tensor(runtime.score(rows_of(inputs)), dtype=torch.float64)
    assert (found - scores).abs().max() < 1e-3
    for ours, theirs in zip(greedy, runtime.greedy(inputs), strict=True):
        assert theirs.tokens == ours.tokens and theirs.finished == ours.finished
        assert theirs.log_probability == pytest.approx(ours.log_probability, abs=1e-3)
    assert any(not one.finished for one in greedy) or any(one.finished for one in greedy)


def test_int8_is_near_and_the_model_stays_what_it_was(make_model, tokenizer, tmp_path):
    model = make_model(False)
    inputs = drawn_inputs([4, 9, 30])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = flat(torch_scores(model, examples_of(inputs)))
    write_ctranslate2(model, tokenizer, tmp_path, "int8")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    runtime = CTranslate2Model(tmp_path, tokenizer, "int8")
    assert "int8" in runtime.compute_type
    away = (torch.tensor(runtime.score(rows_of(inputs)), dtype=torch.float64) - scores).abs().max()
    if torch.cpu._is_vnni_supported():
        assert away < 1.0
    else:  # products of 8 bits are summed in 16 here, and these random weights are large enough to overflow them
        assert away.isfinite()


def test_beams_have_the_log_probabilities_of_their_tokens(make_model, tokenizer, tmp_path):
    model = make_model(True)
    inputs = drawn_inputs([6, 11])
    write_ctranslate2(model, tokenizer, tmp_path, "float32")
    runtime = CTranslate2Model(tmp_path, tokenizer, "float32", steps=7)
    for penalty in (1.0, 0.3):
        for ids, found in zip(inputs, runtime.beam_search(inputs, 3, penalty), strict=True):
            assert len(found) == 3
            for one in found:
                (score,) = runtime.score([(ids, one.tokens)])
                assert one.log_probability == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("size", [1, 2])
def test_no_ngram_is_repeated(make_model, tokenizer, tmp_path, size):
    inputs = drawn_inputs([4, 9, 30])
    write_ctranslate2(make_model(True), tokenizer, tmp_path, "float32")
    runtime = CTranslate2Model(tmp_path, tokenizer, "float32", steps=12)
    free = [one.tokens for one in runtime.greedy(inputs)]
    runtime.no_repeat_ngram_size = size
    found = [one.tokens for one in runtime.greedy(inputs)]
    assert found != free
    for tokens in found:
        ngrams = list(zip(*(tokens[place:] for place in range(size)), strict=False))
        assert len(ngrams) == len(set(ngrams))


def test_stop_strings_end_each_input_where_torch_does(make_model, tokenizer, tmp_path):
    model = make_model(True)
    inputs = drawn_inputs([4, 9, 30, 9])
    write_ctranslate2(model, tokenizer, tmp_path, "float32")
    runtime, decoder = CTranslate2Model(tmp_path, tokenizer, "float32", steps=9), Decoder(model, end=1, steps=9)
    pieces = Pieces(Encoder(tokenizer))
    free = decoder.greedy(inputs)
    written = [b"".join(pieces.of(token) for token in one.tokens[:4]) for one in free]
    courses = [StopAt(pieces, (text[-3:],)) if place != 1 else StopAt(pieces, (b"\xff",)) for place, text in enumerate(written)]
    wanted, found = decoder.greedy(inputs, courses), runtime.greedy(inputs, courses)
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    assert [one.finished for one in found] == [one.finished for one in wanted]
    assert len(found[0].tokens) <= 4 < len(free[0].tokens) and found[1].tokens == free[1].tokens
    for ours, theirs in zip(wanted, found, strict=True):
        assert theirs.log_probability == pytest.approx(ours.log_probability, abs=1e-3)


DROPPED = """
import sys
from pathlib import Path
from mengzi_mt.data.constraints import StopAt
from mengzi_mt.runtimes.ctranslate2_model import CTranslate2Model
from transformers import AutoTokenizer

class Piece:
    def of(self, token):
        return b"."

tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
for _ in range(40):  # while the callback held the model, this aborted within the first few
    found = CTranslate2Model(Path(sys.argv[1]), tokenizer, "float32", steps=3).greedy([[4, 9, 1]], [StopAt(Piece(), (b"!",))])
print(len(found))
"""


def test_a_model_may_be_dropped_right_after_an_answer_with_stop_strings(make_model, tokenizer, tmp_path):
    """A thread of CTranslate2 that released the model's last reference would wait for itself, and abort."""
    write_ctranslate2(make_model(True), tokenizer, tmp_path, "float32")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    ended = subprocess.run(
        [sys.executable, "-c", DROPPED, str(tmp_path), str(tmp_path / "tokenizer")], capture_output=True, text=True, timeout=240
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "1"), ended.stderr[-2000:]


def test_a_choice_without_end_of_sequence(make_model, tokenizer, tmp_path):
    write_ctranslate2(make_model(True), tokenizer, tmp_path, "float32")
    runtime = CTranslate2Model(tmp_path, tokenizer, "float32")
    (ids,) = drawn_inputs([6])
    bare, whole = runtime.score([(ids, (5, 6)), (ids, (5, 6, 1))])
    assert whole < bare


def test_vocabulary_is_the_tokenizers_in_order(tokenizer):
    pieces = vocabulary_of(tokenizer, 2_410)
    assert len(pieces) == 2_410 and len(set(pieces)) == 2_410
    for text in ("龘😀", "换行\n之后", "<extra_id_0>"):
        ids = tokenizer(text).input_ids
        assert [pieces[number] for number in ids] == tokenizer.convert_ids_to_tokens(ids)
    with pytest.raises(InputError, match="cannot stand for"):
        vocabulary_of(tokenizer, 2_399)


def test_what_it_cannot_do_is_said(make_model, tokenizer, tmp_path):
    model = make_model(True)
    write_ctranslate2(model, tokenizer, tmp_path, "float32")
    runtime = CTranslate2Model(tmp_path, tokenizer, "float32")
    pieces = Pieces(Encoder(tokenizer))
    course = OneOf(("好",)).answers(TextExample("", "", (), (), 1.0, "", "", ""), pieces).start
    with pytest.raises(InputError, match="without constraints"):
        runtime.greedy(drawn_inputs([4]), [course])
    with pytest.raises(InputError, match="beams without stop strings"):
        runtime.beam_search(drawn_inputs([4]), 2, courses=[StopAt(pieces, ("好".encode(),))])
    attention = model.decoder.block[1].layer[1].EncDecAttention
    attention.q = torch.nn.Linear(32, 16, bias=False)
    with pytest.raises(InputError, match=r"block\.1.*has 2 of 4"):
        check_uniform(model, "ctranslate2")
    (tmp_path / "ctranslate2" / "model.bin").write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot load"):
        CTranslate2Model(tmp_path, tokenizer, "float32")
