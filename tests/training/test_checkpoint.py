import errno
import json
import os
import resource

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mengzi_mt.errors import InputError, RunError
from mengzi_mt.training import checkpoint
from mengzi_mt.training.checkpoint import (
    MANIFEST,
    TrainerState,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    load_state,
    prune_checkpoints,
    read_manifest,
    save_checkpoint,
    verify_checkpoint,
)

RECIPE = {"seed": 1, "betas": [0.9, 0.98]}


@pytest.fixture
def save(tmp_path, tiny_model, tokenizer):
    """Saves a checkpoint of some step below ``tmp_path`` and returns its folder."""
    model = tiny_model(vocabulary=64)
    moments = {"state": {0: {"exp_avg": torch.arange(200_000.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}

    def make(step, manifest=None):
        folder = checkpoint_path(tmp_path, step)
        state = TrainerState(step, moments, {"cpu": torch.get_rng_state()}, {"tokens": 7}, RECIPE, {"loss": 0.1 + 0.2})
        save_checkpoint(folder, model, tokenizer, manifest or {"step": step}, state)
        return folder

    return make


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checkpoint_is_a_transformers_folder_with_a_manifest_and_a_state(save, tokenizer):
    folder = save(3, {"step": 3, "note": "中"})
    assert folder.name == "step-0000003"
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", MANIFEST} < set(contents(folder))
    assert AutoModelForSeq2SeqLM.from_pretrained(folder).config.vocab_size == 64
    assert AutoTokenizer.from_pretrained(folder)("天气").input_ids == tokenizer("天气").input_ids
    manifest = read_manifest(folder)
    assert (manifest["step"], manifest["note"]) == (3, "中")
    assert manifest["files"] == {name: len(data) for name, data in contents(folder).items() if name != MANIFEST}
    verify_checkpoint(folder)


def test_state_comes_back_exactly(save):
    state = load_state(save(3))
    assert (state.step, state.counters, state.recipe, state.averages) == (3, {"tokens": 7}, RECIPE, {"loss": 0.1 + 0.2})
    assert torch.equal(state.optimiser["state"][0]["exp_avg"], torch.arange(200_000.0))
    assert torch.equal(state.rng["cpu"], torch.get_rng_state())


def test_checkpoint_without_a_trainer_state_is_not_resumed_from(tmp_path, tiny_model, tokenizer):
    save_checkpoint(checkpoint_path(tmp_path, 2), tiny_model(vocabulary=64), tokenizer, {})
    assert latest_checkpoint(tmp_path) == (None, ["step-0000002: it has no trainer state"])


def test_existing_checkpoint_is_replaced(tmp_path, save):
    folder = save(3)
    (folder / "stale").write_text("x")
    save(3, {"new": True})
    assert read_manifest(folder)["new"] and not (folder / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_unfinished_folder_is_never_listed_and_is_cleared_away(tmp_path, save):
    whole = save(3)
    for name in (".unfinished-step-0000004", ".unfinished-replaced-step-0000003"):
        (tmp_path / name).mkdir()
    assert list_checkpoints(tmp_path) == [whole]
    assert latest_checkpoint(tmp_path) == (whole, [])
    prune_checkpoints(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]


def test_run_folder_that_is_not_there_has_no_checkpoints(tmp_path):
    assert list_checkpoints(tmp_path / "absent") == []
    assert latest_checkpoint(tmp_path / "absent") == (None, [])


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "trainer_state/tensors.pt", "trainer_state/state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_checkpoint_is_found_out_and_the_one_before_is_taken(tmp_path, save, name, damage):
    good, bad = save(3), save(6)
    if damage == "missing":
        (bad / name).unlink()
    else:
        os.truncate(bad / name, (bad / name).stat().st_size - 1)
    with pytest.raises(InputError, match=f"incomplete: {name} ") as caught:
        verify_checkpoint(bad)
    assert caught.value.where == str(bad)
    found, (problem,) = latest_checkpoint(tmp_path)
    assert found == good
    assert problem.startswith(f"step-0000006: The checkpoint is incomplete: {name}")


@pytest.mark.parametrize("text", [None, "{}", "[]", '{"files": {}}', '{"files": ["a"]}', "{", "\udcff"])
def test_foreign_folder_is_refused(tmp_path, save, text):
    folder, good = tmp_path / "step-0000009", save(3)
    folder.mkdir()
    if text is not None:
        (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError):
        verify_checkpoint(folder)
    found, problems = latest_checkpoint(tmp_path)
    assert (found, len(problems)) == (good, 1)


def test_pruning_keeps_the_newest_complete_ones(tmp_path, save):
    folders = [save(step) for step in (2, 4, 6, 8)]
    (folders[3] / "config.json").unlink()
    prune_checkpoints(tmp_path, 2)
    assert list_checkpoints(tmp_path) == folders[1:3]


def test_old_checkpoint_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, save, monkeypatch):
    save(3)
    before = contents(tmp_path)
    rename = checkpoint.Path.rename

    def failing(path, target):
        if path.name == ".unfinished-step-0000003":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(checkpoint.Path, "rename", failing)
    with pytest.raises(RunError, match="Input/output error"):
        save(3)
    assert contents(tmp_path) == before


def fail_writing(patch, name):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(checkpoint, name, full)


@pytest.mark.parametrize("part", ["save_model", "_save_tensors", "_write_json", "_sync"])
def test_full_disk_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, save, part, monkeypatch):
    good = save(3)
    before = contents(tmp_path)
    fail_writing(monkeypatch, part)
    for step in (3, 6):
        with pytest.raises(RunError, match="No space left") as caught:
            save(step)
        assert f"step-000000{step}" in caught.value.where and "MiB free" in caught.value.where
        assert contents(tmp_path) == before
    assert latest_checkpoint(tmp_path) == (good, [])


@pytest.mark.parametrize("stopped_at", ["model.safetensors", "tokenizer.json", "trainer_state/tensors.pt"])
def test_write_that_the_system_stops_is_a_run_error(tmp_path, save, stopped_at):
    good = save(3)
    before = contents(tmp_path)
    sizes = read_manifest(good)["files"]
    assert sizes["model.safetensors"] < sizes["tokenizer.json"] < sizes["trainer_state/tensors.pt"]
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[stopped_at] - 1_000, old[1]))
    try:
        with pytest.raises(RunError, match="could not be written"):
            save(6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert contents(tmp_path) == before


def test_folder_that_cannot_be_made_is_a_run_error(tmp_path, tiny_model, tokenizer):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        save_checkpoint(tmp_path / "file" / "step-0000001", tiny_model(vocabulary=64), tokenizer, {})


def test_other_failures_keep_their_type_and_leave_nothing(tmp_path, save, monkeypatch):
    def broken(*_args):
        raise ValueError("a bug")

    monkeypatch.setattr(checkpoint, "save_model", broken)
    with pytest.raises(ValueError, match="a bug"):
        save(3)
    assert list(tmp_path.iterdir()) == []


def test_kill_while_an_old_checkpoint_is_replaced_leaves_no_half_of_it(tmp_path, save, monkeypatch):
    folder = save(3)
    before = contents(folder)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *_args, **_options: None)
    save(3, {"new": True})
    replaced = tmp_path / ".unfinished-replaced-step-0000003"
    assert contents(replaced) == before
    assert json.loads((folder / MANIFEST).read_text())["new"]
    verify_checkpoint(folder)
