from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mengzi_mt.errors import InputError, RunError
from mengzi_mt.resources import resource_dir
from mengzi_mt.sdk.publish import files_of, lay_out_for_modelscope, push
from tests.sdk.hub_stand_in import HubStandIn


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server = HubStandIn()
    yield server
    server.close()


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(resource_dir("models") / "mengzi-mt-mini", folder)
    (folder / "trainer_state").mkdir()
    (folder / "trainer_state" / "tensors.pt").write_bytes(b"of training alone")
    (folder / ".hidden").write_text("no")
    return folder


def test_what_is_uploaded_is_the_model_and_loads(hub, model, tmp_path):
    address = push(model, "someone/chinese-t5", endpoint=hub.endpoint, token="hf_of_a_test", message="First")
    assert address.startswith(f"{hub.endpoint}/someone/chinese-t5/commit/")
    held = hub.repositories["someone/chinese-t5"]
    assert set(held) == {str(name) for name in files_of(model)}
    assert not any("trainer_state" in name or name.startswith(".") for name in held)
    assert all(held[name] == (model / name).read_bytes() for name in held)
    assert [commit["summary"] for commit in hub.commits] == ["First"]
    assert hub.tokens == {"Bearer hf_of_a_test"}

    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, content in held.items():
        (fetched / name).write_bytes(content)
    assert AutoModelForSeq2SeqLM.from_pretrained(fetched).config.model_type == "t5"
    assert len(AutoTokenizer.from_pretrained(fetched)) == len(AutoTokenizer.from_pretrained(model))


def test_a_second_upload_keeps_what_lies_beside(hub, model):
    hub.repositories["a/b"] = {"notes.md": b"by hand"}
    push(model, "a/b", endpoint=hub.endpoint, token="t")
    assert hub.repositories["a/b"]["notes.md"] == b"by hand"


@pytest.mark.parametrize("status", [401, 403])
def test_without_the_right_to_write_it_says_how_to_log_in(hub, model, status):
    hub.refuse = status
    with pytest.raises(InputError, match=r"does not let you write there.*hf auth login"):
        push(model, "a/b", endpoint=hub.endpoint, token="t")


def test_a_hub_that_is_not_there(hub, model):
    hub.close()
    with pytest.raises(RunError, match="cannot be reached"):
        push(model, "a/b", endpoint=hub.endpoint, token="t")


def test_a_malformed_name(hub, model):
    with pytest.raises(InputError, match="give owner/name"):
        push(model, "a/b/c", endpoint=hub.endpoint, token="t")


@pytest.mark.parametrize(("missing", "fix"), [("README.md", "mengzi-mt card"), ("config.json", "give a checkpoint")])
def test_an_incomplete_folder_is_not_uploaded(hub, model, missing, fix):
    (model / missing).unlink()
    with pytest.raises(InputError, match=fix):
        push(model, "a/b", endpoint=hub.endpoint, token="t")
    assert not hub.repositories


def test_modelscope_layout(model, tmp_path):
    out = tmp_path / "out"
    written = lay_out_for_modelscope(model, out)
    assert json.loads((out / "configuration.json").read_text())["task"] == "text2text-generation"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nframeworks:\n  - Pytorch\n")
    assert card.count("\n---\n") == 1 and "## Data and licences" in card
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(map(str, written))
    assert not (out / "trainer_state").exists()
    assert AutoModelForSeq2SeqLM.from_pretrained(out).config.model_type == "t5"
    with pytest.raises(InputError, match="not empty"):
        lay_out_for_modelscope(model, out)


def test_modelscope_keys_go_in_front_of_a_card_without_any(model, tmp_path):
    (model / "README.md").write_text("# A model\n\n---\n\nmore\n", encoding="utf-8")
    lay_out_for_modelscope(model, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nframeworks:") and card.endswith("---\n\n# A model\n\n---\n\nmore\n")
