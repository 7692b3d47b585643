import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from mengzi_mt.compression.distil import check_tokenizers, distil, set_up_distillation
from mengzi_mt.compression.distil_recipe import DistilRecipe, EncoderDistilRecipe, load_distil_recipe
from mengzi_mt.config import dump_recipe
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError
from mengzi_mt.models.cross_entropy import LossSettings
from mengzi_mt.models.t5 import load_model
from mengzi_mt.models.tokenizer import load_tokenizer, train_tokenizer
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training import loop
from mengzi_mt.training.checkpoint import read_manifest
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.loader import StepMaker
from mengzi_mt.training.losses import accumulate
from mengzi_mt.training.run_status import MEASURED, read_metrics

SAMPLE = DataSource("sample")
PSEUDO = {"examples": 10, "share": 0.5, "beams": 2}


class Killed(BaseException):
    pass


def records(recipe):
    return [{k: v for k, v in one.items() if k not in MEASURED} for one in read_metrics(recipe.run_dir / "metrics.jsonl")]


def test_a_student_of_half_the_layers_learns_and_is_a_plain_checkpoint(make_recipe, teacher_dir):
    recipe = make_recipe(
        student={"layers": "even"}, optimiser={"learning_rate": 3e-3, "warmup": 0},
        training={"steps": 12, "batch": 12, "log_every": 12, "checkpoint_every": 12},
        losses={"hard": 0.0, "logits": {"weight": 1.0, "temperature": 1}, "relations": {"heads": 4}},
    )  # fmt: skip
    before = set_up_distillation(recipe, SAMPLE, Devices(recipe.training))
    final = distil(recipe, SAMPLE)
    model = AutoModelForSeq2SeqLM.from_pretrained(final)
    assert (model.config.num_layers, model.config.num_decoder_layers) == (2, 2)
    batch = StepMaker(before.recipe, before.mixture, before.stream, Encoder(before.tokenizer), 0)(0)

    def apart(student):
        objective = before.objective
        objective.reweigh(student, batch, None)
        with torch.no_grad():
            return sum(float(objective.loss(student, part, LossSettings(), recompute=False)[0]) for part in batch.batches)

    trained = apart(load_model(final))
    assert 0 < trained < 0.9 * apart(before.model.eval())
    about = read_manifest(final)["distillation"]
    assert about["teacher"]["model"] == str(teacher_dir)
    assert about["student"] == f"layers even (decoder even) of {teacher_dir}"
    last = records(recipe)[-1]
    assert last["loss_parts"].keys() == {"cross_entropy", "logits", "encoder", "decoder", "cross"}
    assert all(math.isfinite(value) for value in last["loss_parts"].values())


@pytest.mark.parametrize("pseudo", [None, PSEUDO])
def test_an_interrupted_run_goes_on_bit_for_bit(make_recipe, monkeypatch, pseudo):
    settings = {"steps": 4, "checkpoint_every": 2, "workers": 1}
    whole, cut = (make_recipe(output=name, pseudo_labels=pseudo, training=settings) for name in ("whole", "cut"))
    distil(whole, SAMPLE)
    calls = iter(range(1, 100))

    def killed(*arguments):
        if next(calls) == 4:
            raise Killed
        return accumulate(*arguments)

    monkeypatch.setattr(loop, "accumulate", killed)
    with pytest.raises(Killed):
        distil(cut, SAMPLE)
    monkeypatch.setattr(loop, "accumulate", accumulate)
    distil(cut, SAMPLE)
    assert records(cut) == records(whole)
    ours, theirs = (load_file(recipe.run_dir / "final" / "model.safetensors") for recipe in (cut, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_teacher_itself_as_student_stands_still(make_recipe, teacher_dir):
    recipe = make_recipe(
        student={"layers": [0, 1, 2, 3]}, losses={"hard": 0.0, "logits": {}, "relations": {"method": "minilm"}},
        optimiser={"name": "adamw", "eps": 1e-2},
    )  # fmt: skip
    final = distil(recipe, SAMPLE)
    assert all(record["loss"] == pytest.approx(0.0, abs=1e-5) for record in records(recipe) if "loss" in record)
    ours, theirs = load_model(final).state_dict(), load_model(teacher_dir).state_dict()
    assert all((ours[key] - theirs[key]).abs().max() < 1e-3 for key in theirs)


def test_pseudo_labels_stand_in_for_the_gold_targets(make_recipe):
    recipe = make_recipe(pseudo_labels={"examples": 8, "share": 1.0, "beams": 2}, losses={"hard": 1.0, "relations": None})
    run = set_up_distillation(recipe, SAMPLE, Devices(recipe.training))
    lines = [json.loads(line) for line in (recipe.run_dir / "pseudo-labels.jsonl").read_text().splitlines()]
    assert lines[0]["made_from"]["beams"] == 2
    assert run.objective is None
    encoder = Encoder(run.tokenizer)
    drawn = run.stream.examples(0, 8)
    kept = [(one, line) for one, line in zip(drawn, lines[1:], strict=True) if one is not None]  # long ones do not fit the limits
    assert len(kept) >= 4
    assert all(one.targets == encoder.target(line["targets"]) for one, line in kept)
    assert distil(recipe, SAMPLE).is_dir()


def test_an_assistant_is_distilled_first_and_teaches(make_recipe, teacher_dir, tmp_path, capsys):
    recipe = make_recipe(
        student={"layers": [0]}, assistants=[{"student": {"layers": "even"}, "steps": 2}], training={"steps": 3},
    )  # fmt: skip
    final = distil(recipe, SAMPLE)
    assistant = tmp_path / "run" / "assistant-1" / "final"
    assert load_model(assistant).config.num_layers == 2
    assert load_model(final).config.num_layers == 1
    assert read_manifest(assistant)["distillation"]["teacher"]["model"] == str(teacher_dir)
    assert read_manifest(assistant)["step"] == 2
    taught = read_manifest(final)["distillation"]
    assert taught["teacher"]["model"] == str(assistant)
    assert taught["student"] == f"layers (0,) (decoder (0,)) of {assistant}"
    before = (assistant / "model.safetensors").stat().st_mtime_ns
    assert "assistant-1: taught by" in capsys.readouterr().err
    distil(recipe, SAMPLE)
    assert (assistant / "model.safetensors").stat().st_mtime_ns == before
    assert "assistant-1" not in capsys.readouterr().err


def test_a_student_of_another_shape_takes_the_teachers_tokenizer(make_recipe):
    recipe = make_recipe(student={"shape": "micro"}, training={"steps": 1})
    model = load_model(distil(recipe, SAMPLE))
    assert (model.config.d_model, model.config.vocab_size) == (128, 2_400)


def test_another_tokenizer_is_refused_where_tokens_are_compared(make_recipe, teacher_dir, sample_texts, tmp_path):
    other = tmp_path / "other"
    train_tokenizer(sample_texts[:800], other, 1_700, character_coverage=0.98, threads=1, partial=True)
    recipe = make_recipe(student={"shape": "micro", "tokenizer": str(other)}, training={"steps": 1})
    with pytest.raises(InputError, match="different tokenizers") as error:
        distil(recipe, SAMPLE)
    assert "pseudo_labels" in error.value.fix
    told = make_recipe(
        student={"shape": "micro", "tokenizer": str(other)}, losses={"logits": None, "relations": None},
        pseudo_labels={"examples": 6, "share": 1.0, "beams": 1}, training={"steps": 1},
    )  # fmt: skip
    assert len(load_tokenizer(distil(told, SAMPLE))) < 2_400
    same = load_tokenizer(teacher_dir)
    check_tokenizers(recipe, same, same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {}}, "give either `shape`"),
        ({"student": {"shape": "micro", "layers": "even"}}, "give either `shape`"),
        ({"student": {"init": "x", "decoder_layers": [0]}}, "needs `layers`"),
        ({"losses": {"hard": 0, "logits": None, "relations": {}}}, "relations alone leave"),
        ({"losses": {"relations": {"encoder": 0, "decoder": 0, "cross": 0}}}, "every place has the weight 0"),
        ({"losses": {"relations": {"method": "minilm", "heads": 4}}}, "which minilm does not have"),
        ({"model": {"init": "x"}}, "`model` follows from"),
        ({"training": {"layout": "packed"}}, "flat batches"),
        ({"training": {"lora": {}}}, "a student is a model of its own"),
    ],
)
def test_what_cannot_be_distilled_is_said(make_recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(**changes)


def test_recipes_are_read_written_and_told_apart(tmp_path):
    recipe = load_distil_recipe("distil-mini-to-micro", ["student={layers: even}", "losses.relations.heads=4"])
    assert isinstance(recipe, DistilRecipe)
    assert (recipe.student.layers, recipe.model.init, recipe.losses.relations.heads) == ("even", "models/mengzi-mt-mini", 4)
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_distil_recipe(path) == recipe
    assert isinstance(load_distil_recipe("distil-encoder-l6"), EncoderDistilRecipe)
    with pytest.raises(InputError, match="Unknown key 'temprature'"):
        load_distil_recipe("distil-mini-to-micro", ["losses.logits.temprature=3"])
    with pytest.raises(InputError, match=r"key student\.shape"):
        load_distil_recipe("distil-mini-to-micro", ["student.shape=nano"])
