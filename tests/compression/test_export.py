import json

import pytest
import torch

from mengzi_mt.compression import export as module
from mengzi_mt.compression.export import ExportSettings, export
from mengzi_mt.compression.export_check import check_examples, compare, refuse_wrong
from mengzi_mt.data.constraints import OneOf
from mengzi_mt.errors import InputError, RunError
from mengzi_mt.evaluation.loading import load_scorers
from mengzi_mt.models.t5 import load_model
from mengzi_mt.training.checkpoint import read_manifest, save_checkpoint, verify_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    from mengzi_mt.models.t5 import build_model

    folder = tmp_path_factory.mktemp("checkpoint") / "final"
    save_checkpoint(folder, build_model("micro", len(tokenizer)), tokenizer, {"recipe": {"name": "tiny"}, "step": 7})
    return folder


def test_an_int8_export_is_a_quarter_and_takes_the_place_of_a_checkpoint(checkpoint, tmp_path):
    out = export(checkpoint, tmp_path / "int8", ExportSettings())
    told = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert (told["format"], told["runtime"], told["precision"]) == ("mengzi-mt/export/1", "torch-int8", "int8")
    assert told["source"]["name"] == "tiny" and len(told["source"]["hash"]) == 16
    assert told["check"]["log_probabilities"] == 25 and 0 < told["check"]["largest_difference"] < 1
    assert (out / "model.safetensors").exists() is False
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size / told["files"]["torch-int8/int8.safetensors"]["bytes"] > 3.5
    verify_checkpoint(out)
    assert read_manifest(out)["runtime"] == "torch-int8" and "no checkpoint of transformers" in (out / "README.md").read_text()

    plain, loaded = load_scorers(str(checkpoint)), load_scorers(str(out), batch_size=4)
    assert loaded.parameters == plain.parameters and loaded.precision == "int8" and "torch-int8" in loaded.way
    ranked, asked = check_examples()
    assert compare(plain, loaded)["largest_difference"] == pytest.approx(told["check"]["largest_difference"], rel=0.05)
    assert loaded.generator.generate(ranked[:2], constraint=OneOf())[1].text in ranked[1].choices
    assert len(loaded.generator.generate(asked)) == len(asked)
    with pytest.raises(InputError, match="precision of its own"):
        load_scorers(str(out), precision="bfloat16")


def test_ctranslate2_takes_the_same_place(checkpoint, tmp_path):
    pytest.importorskip("ctranslate2")
    out = export(checkpoint, tmp_path / "ct2", ExportSettings(to="ctranslate2", precision="float32"))
    told = json.loads((out / "export.json").read_text(encoding="utf-8"))["check"]
    assert told["largest_difference"] < 1e-3 and told["same_greedy_answers"] == told["open_prompts"]
    loaded = load_scorers(str(out))
    ranked, _ = check_examples()
    with pytest.raises(InputError, match="--to torch or --to onnx"):
        loaded.generator.generate(ranked, constraint=OneOf())


def test_a_float32_export_that_is_wrong_leaves_nothing_behind(checkpoint, tmp_path, monkeypatch):
    """What CTranslate2's own converter does with a head of its own under transformers 5: it scales the states."""
    pytest.importorskip("ctranslate2")
    from mengzi_mt.runtimes import ctranslate2_model

    monkeypatch.setattr(ctranslate2_model, "output_scale", lambda model: 0.5)
    with pytest.raises(RunError, match="is not the checkpoint"):
        export(checkpoint, tmp_path / "wrong", ExportSettings(to="ctranslate2", precision="float32"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), 2e-3])
def test_a_difference_that_is_no_number_is_wrong_too(value):
    check = {"largest_difference": value, "same_greedy_answers": 1, "open_prompts": 1}
    with pytest.raises(RunError):
        refuse_wrong(check, "float32")
    refuse_wrong(check, "int8")


def test_places_and_precisions_that_are_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="replace its checkpoint"):
        export(checkpoint, checkpoint, ExportSettings())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="Something else is there"):
        export(checkpoint, tmp_path, ExportSettings())
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="onnx has no precision 'bfloat16'"):
        export(checkpoint, tmp_path / "out", ExportSettings(to="onnx", precision="bfloat16"))


def test_a_float_precision_of_torch_is_a_plain_checkpoint(checkpoint, tmp_path):
    out = export(checkpoint, tmp_path / "bf16", ExportSettings(to="torch", precision="bfloat16"))
    assert load_model(out, torch.bfloat16).dtype == torch.bfloat16 and not (out / "export.json").exists()
    assert module.precisions("torch") == ("float32", "bfloat16", "int8")


def test_a_missing_library_names_its_extra(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"mengzi-mt\[onnx\]"):
        export(checkpoint, tmp_path / "out", ExportSettings(to="onnx", precision="int8"))
    assert not (tmp_path / "out").exists()


def test_a_pruned_model_goes_to_torch_and_is_refused_elsewhere(tokenizer, tmp_path):
    from mengzi_mt.models.pruned import remove_units
    from mengzi_mt.models.t5 import build_model

    model = build_model("micro", len(tokenizer))
    remove_units(model, {"decoder.block.1.layer.0.SelfAttention": [0, 2], "encoder.block.0.layer.1.DenseReluDense": range(100)})
    save_checkpoint(tmp_path / "pruned", model, tokenizer, {"recipe": {"name": "pruned"}})
    out = export(tmp_path / "pruned", tmp_path / "int8", ExportSettings())
    assert json.loads((out / "export.json").read_text(encoding="utf-8"))["check"]["largest_difference"] < 1
    ranked, _ = check_examples()
    assert len(load_scorers(str(out)).scorer.score(ranked)) == len(ranked)
    for runtime in ("ctranslate2", "onnx"):
        with pytest.raises(InputError, match="does not know a model whose heads differ by layer"):
            export(tmp_path / "pruned", tmp_path / runtime, ExportSettings(to=runtime, precision="int8"))
