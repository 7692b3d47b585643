"""Checkpoints that are converted on the way, and exports that are not what was asked for."""

import gc
import shutil
import weakref

import pytest
import torch

from mengzi_mt import Mengzi
from mengzi_mt.errors import InputError
from mengzi_mt.models.t5 import load_model
from mengzi_mt.sdk.conversion import _identity, converted, local_folder
from mengzi_mt.training.checkpoint import save_checkpoint

REVIEW = "房间干净，服务员很热情，下次还来。"


@pytest.fixture
def checkpoint(tmp_path, tiny_model, tokenizer, monkeypatch):
    monkeypatch.setenv("MENGZI_MT_CACHE", str(tmp_path / "cache"))
    return save_checkpoint(tmp_path / "small", tiny_model(vocabulary=len(tokenizer)), tokenizer, {"step": 1}) or tmp_path / "small"


@pytest.mark.parametrize(
    ("backend", "dtype", "runtime"),
    [
        ("ctranslate2", None, "ctranslate2"),
        ("ctranslate2", "float32", "ctranslate2"),
        ("torch", "int8", "torch-int8"),
        (None, "int8", "torch-int8"),
    ],
)
def test_a_checkpoint_is_converted_once_and_answers_as_before(checkpoint, capsys, tmp_path, backend, dtype, runtime):
    plain = Mengzi.load(checkpoint, device="cpu").sentiment(REVIEW)
    other = Mengzi.load(checkpoint, device="cpu", backend=backend, dtype=dtype)
    [folder] = (tmp_path / "cache" / "exports").iterdir()
    assert runtime in folder.name and "converting" in capsys.readouterr().err
    rounding = 0.02 if torch.cpu._is_vnni_supported() or "torch" in runtime else 0.1  # without VNNI CTranslate2's sums overflow
    near = pytest.approx(plain.probability, abs=1e-5 if dtype == "float32" else rounding)
    assert other.sentiment(REVIEW).probability == near
    before = folder.stat().st_mtime_ns
    Mengzi.load(checkpoint, device="cpu", backend=backend, dtype=dtype)
    assert folder.stat().st_mtime_ns == before and "converting" not in capsys.readouterr().err


def test_other_weights_are_converted_anew_and_damage_is_mended(checkpoint, tmp_path, tokenizer):
    first = converted(str(checkpoint), "torch", None)
    model = load_model(checkpoint)
    with torch.no_grad():
        model.shared.weight.mul_(1.5)
    save_checkpoint(checkpoint, model, tokenizer, {"step": 2})
    second = converted(str(checkpoint), "torch", None)
    assert second != first
    whole = sum(path.stat().st_size for path in (tmp_path / "cache" / "exports").rglob("*.safetensors"))
    for path in (tmp_path / "cache" / "exports").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert converted(str(checkpoint), "torch", None) == second and converted(str(checkpoint), "torch", "int8") == second
    assert (
        sum(path.stat().st_size for path in (tmp_path / "cache" / "exports").rglob("*.safetensors")) < whole
    )  # the other is as it was
    assert Mengzi.load(second, device="cpu").sentiment(REVIEW).label


def test_another_tokenizer_or_configuration_is_another_checkpoint(checkpoint):
    first = converted(str(checkpoint), "torch", None)
    config = checkpoint / "generation_config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert converted(str(checkpoint), "torch", None) != first


def test_weights_that_are_not_in_safetensors_tell_checkpoints_apart(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pytorch_model.bin").write_bytes(name.encode())
    assert _identity(tmp_path / "one") != _identity(tmp_path / "other")


def test_a_hub_model_without_safetensors_is_fetched_with_what_it_has(monkeypatch, tmp_path):
    asked = []

    def fetch(name, allow_patterns):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert local_folder("owner/model") == tmp_path and ["*.bin" in patterns for patterns in asked] == [False, True]
    (tmp_path / "model.safetensors").write_bytes(b"")
    asked.clear()
    assert local_folder("owner/model") == tmp_path and ["*.bin" in patterns for patterns in asked] == [False]


def test_an_export_must_be_what_is_asked_for(checkpoint, tmp_path):
    folder = shutil.move(converted(str(checkpoint), "torch", None), tmp_path / "made")
    for options, message in (
        ({"backend": "onnx"}, "not for onnx"),
        ({"dtype": "bfloat16"}, "is in int8, not in bfloat16"),
        ({"dtype": "float32"}, "is in int8"),
    ):
        with pytest.raises(InputError, match=message):
            Mengzi.load(folder, device="cpu", **options)
    assert Mengzi.load(folder, device="cpu", backend="torch", dtype="int8").sentiment(REVIEW).label


def test_a_name_that_is_nowhere_is_refused():
    with pytest.raises(InputError, match="Nothing to convert") as error:
        local_folder("nobody/nothing")
    assert "hub name" in error.value.fix


@pytest.mark.parametrize("backend", ["torch", "ctranslate2"])
def test_a_dropped_model_is_free_at_once(checkpoint, backend):
    """Not when garbage is collected: that may happen in a thread of CTranslate2, which then aborts, and weights are large."""
    if backend != "torch":
        pytest.importorskip(backend)
    mengzi = Mengzi.load(checkpoint, device="cpu", backend=backend)
    mengzi.sentiment(REVIEW)
    list(mengzi.stream("好", max_new_tokens=2))
    scorer = weakref.ref(mengzi.scorers.scorer)
    gc.collect()
    gc.disable()
    try:
        del mengzi
        assert scorer() is None
    finally:
        gc.enable()
