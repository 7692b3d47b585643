import copy
import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from mengzi_mt.errors import InputError, RunError
from mengzi_mt.pretraining import encoder_loop
from mengzi_mt.pretraining.encoder_loop import train_encoder
from mengzi_mt.pretraining.encoder_run import set_up_encoder
from mengzi_mt.training.run_status import MEASURED, read_metrics


def trained(recipe, **options):
    return train_encoder(set_up_encoder(recipe), **options)


def records(recipe):
    kept = [{k: v for k, v in record.items() if k not in MEASURED} for record in read_metrics(recipe.run_dir / "metrics.jsonl")]
    return [record for record in kept if record]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_run_goes_on_bit_for_bit(make_recipe, tmp_path, monkeypatch, workers):
    whole = make_recipe(output=str(tmp_path / "whole"), steps=5, validate_every=5, workers=workers)
    trained(whole)
    cut = make_recipe(output=str(tmp_path / "cut"), steps=5, validate_every=5, workers=workers)
    steps, real = [], encoder_loop.accumulate

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(encoder_loop, "accumulate", interrupted)
    with pytest.raises(SystemExit, match="143"):
        trained(cut)
    assert (cut.run_dir / "step-0000003").is_dir()
    final = trained(cut)
    assert len(steps) == 5
    assert records(cut) == records(whole)
    for name in ("model.safetensors", "objective_heads.safetensors"):
        ours, theirs = load_file(final / name), load_file(whole.run_dir / "final" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_checkpoint_is_a_plain_model_of_transformers(make_recipe):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    recipe = make_recipe(steps=2, dropout=0.0)
    run = set_up_encoder(recipe)
    final = train_encoder(run)
    model, report = AutoModelForMaskedLM.from_pretrained(final, output_loading_info=True)
    assert type(model).__name__ == "BertForMaskedLM"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(final)
    given = tokenizer("今天<extra_id_0>好", "天气", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**given).logits, run.model.eval()(**given).logits)
    assert tokenizer.mask_token == "<extra_id_0>"
    manifest = json.loads((final / "mengzi_mt.json").read_text())
    assert manifest["labels"] == {"pos": list("abcde"), "ner": ["O", "B-LOC", "I-LOC"]}
    again = set_up_encoder(make_recipe(shape=None, init=str(final), output=str(final.parent.parent / "again"), steps=1))
    assert torch.equal(
        again.model.base_model.embeddings.word_embeddings.weight, run.model.base_model.embeddings.word_embeddings.weight
    )
    trained(again.recipe)


def test_it_learns_and_says_what(make_recipe):
    recipe = make_recipe(
        steps=80, batch=16, dropout=0.0, validate_every=20, log_every=20, checkpoint_every=100, micro_batch_tokens=1000
    )
    trained(recipe)
    logged = [record for record in records(recipe) if "loss" in record]
    assert logged[-1]["task_loss"].keys() == {"mlm", "pos", "ner", "order"}
    assert logged[-1]["loss"] < logged[0]["loss"]
    checked = [record for record in records(recipe) if "validation_loss" in record]
    last = checked[-1]
    losses = last["validation_losses"]
    assert last["validation_loss"] == pytest.approx(losses["mlm"] + 0.5 * losses["pos"] + 2.0 * losses["ner"] + losses["order"])
    assert losses["pos"] < 0.9 * checked[0]["validation_losses"]["pos"]
    assert set(last["scores"]) == {"mlm_accuracy", "pos_accuracy", "ner_accuracy", "order_accuracy"}


def test_another_recipe_is_refused(make_recipe):
    trained(make_recipe(steps=2))
    with pytest.raises(InputError, match=r"objectives\.pos: 0\.5 there, 0\.25 here"):
        trained(make_recipe(steps=2, pos=0.25))
    with pytest.raises(InputError, match="holds checkpoints already"):
        trained(make_recipe(steps=2), resume=False)


def test_another_corpus_is_refused(make_recipe):
    trained(make_recipe(steps=2))
    run = set_up_encoder(make_recipe(steps=2))
    run.corpus.manifest["fingerprint"] = "another"
    with pytest.raises(InputError, match="corpus or its tags are not those"):
        train_encoder(run)


def test_a_loss_that_is_no_number_ends_the_run(make_recipe):
    run = set_up_encoder(make_recipe(steps=2))
    with torch.no_grad():
        run.heads.tags["pos"].bias.fill_(torch.nan)
    with pytest.raises(RunError, match="The loss is nan"):
        train_encoder(run)


def test_a_corpus_without_tags_is_refused_before_anything_is_built(make_recipe, text_corpus):
    with pytest.raises(InputError, match="not tagged"):
        set_up_encoder(make_recipe(corpus=str(text_corpus)))
    bare = make_recipe(corpus=str(text_corpus), pos=0, ner=0, whole_words=False, steps=1)
    assert set_up_encoder(bare).labels == {}


def test_a_window_longer_than_the_model_reads_is_refused(make_recipe):
    with pytest.raises(ValueError, match="less than or equal to 512"):
        make_recipe(window=513)


def test_a_pruned_encoder_trains_on_and_loads_with_the_sizes_that_it_has(make_recipe, tokenizer):
    from mengzi_mt.models.pruned import remove_units, units_of
    from mengzi_mt.pretraining.encoder_models import give_roles, load_encoder

    run = set_up_encoder(make_recipe(steps=1))
    kept = {units.name: [*range(place + 1)] for place, units in enumerate(units_of(run.model))}
    remove_units(run.model, kept)
    final = train_encoder(run)
    tokenizer = copy.deepcopy(tokenizer)  # other tests use it as it is
    give_roles(tokenizer)
    loaded = load_encoder(str(final), tokenizer).eval()
    assert [units.count for units in units_of(loaded)] == [1, 2, 3, 4]
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, run.model.eval()(input_ids=ids).logits)
