import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, BertConfig, MT5Config, MT5ForConditionalGeneration

from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import WEIGHTS_FILE, is_tied, load_model, save_model, untie_head

INPUTS = torch.arange(3, 23).reshape(2, 10)
LABELS = torch.arange(30, 38).reshape(2, 4)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=INPUTS, labels=LABELS).logits


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request, tiny_model):
    return tiny_model(tied=request.param)


@pytest.fixture
def saved(tmp_path, tiny_model):
    save_model(tiny_model(), tmp_path)
    return tmp_path


def test_transformers_reads_the_same_logits(tmp_path, model):
    save_model(model, tmp_path)
    assert torch.equal(logits(AutoModelForSeq2SeqLM.from_pretrained(tmp_path)), logits(model))
    read = load_model(tmp_path)
    assert torch.equal(logits(read), logits(model))
    assert is_tied(read) == is_tied(model)


def test_saving_what_was_loaded_changes_nothing(tmp_path, model):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    save_model(model, first)
    save_model(load_model(first), second)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_folder_says_how_the_head_is(tmp_path, model):
    save_model(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] == is_tied(model)
    assert "scale_decoder_outputs" not in config
    stored = load_file(str(tmp_path / WEIGHTS_FILE))
    assert ("lm_head.weight" in stored) != is_tied(model)
    assert "shared.weight" in stored and "encoder.embed_tokens.weight" not in stored
    assert json.loads((tmp_path / "generation_config.json").read_text())["decoder_start_token_id"] == 0


def test_untied_head_that_equals_the_embedding_stays_untied(tmp_path, tiny_model):
    model = tiny_model(tied=False)
    model.lm_head.weight.data.copy_(model.shared.weight.data)
    save_model(model, tmp_path)
    read = load_model(tmp_path)
    assert not is_tied(read)
    assert torch.equal(logits(read), logits(model))


def test_mt5_with_its_own_head_is_read_and_written(tmp_path):
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))
    untie_head(model)
    torch.nn.init.normal_(model.lm_head.weight)
    save_model(model, tmp_path)
    assert torch.equal(logits(load_model(tmp_path)), logits(model))


def test_weights_are_stored_and_read_in_the_dtype_asked_for(tmp_path, model):
    save_model(model, tmp_path, torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(str(tmp_path / WEIGHTS_FILE)).values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(tmp_path).dtype == torch.float32
    assert load_model(tmp_path, torch.bfloat16).dtype == torch.bfloat16


def test_dropout_of_the_loaded_model_can_be_set(saved):
    rates = {module.p for module in load_model(saved, dropout=0.3).modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}


def refused(folder):
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert caught.value.where == str(folder)
    return str(caught.value)


def test_model_of_another_family_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    assert "'bert' model, not a T5" in refused(tmp_path)


def test_folder_without_a_model_is_refused(tmp_path):
    assert "No model can be loaded" in refused(tmp_path)
    assert "No model can be loaded" in refused(tmp_path / "absent")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(saved, share):
    whole = (saved / WEIGHTS_FILE).read_bytes()
    (saved / WEIGHTS_FILE).write_bytes(whole[: int(len(whole) * share)])
    assert "weights cannot be loaded" in refused(saved)


def test_absent_weights_are_refused(saved):
    (saved / WEIGHTS_FILE).unlink()
    assert "weights cannot be loaded" in refused(saved)


def test_missing_tensor_is_named(saved):
    stored = load_file(str(saved / WEIGHTS_FILE))
    del stored["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(stored, str(saved / WEIGHTS_FILE), metadata={"format": "pt"})
    assert "lacks 1 weights, encoder.block.1.layer.0.SelfAttention.q.weight" in refused(saved)


def test_damaged_configuration_is_refused(saved):
    (saved / "config.json").write_text("{")
    assert "No model can be loaded" in refused(saved)
