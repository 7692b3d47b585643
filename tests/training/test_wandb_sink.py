import sys
import time
import types

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.training.wandb_sink import WandbSink, flatten, has_account


class FakeRun:
    def __init__(self):
        self.logged, self.finished, self.fails = [], None, False

    def define_metric(self, *arguments, **options):
        self.metric = (arguments, options)

    def log(self, record):
        if self.fails:
            raise ConnectionError("no network")
        self.logged.append(record)

    def finish(self, exit_code):
        self.finished = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """A wandb that records how it is called."""
    module = types.ModuleType("wandb")
    module.run, module.started = FakeRun(), []
    module.Settings = dict
    module.init = lambda **options: module.started.append(options) or module.run
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    return module


def start(tmp_path, run_id=None, said=None):
    return WandbSink(tmp_path, "project", "name", {"seed": 1}, run_id, (said if said is not None else []).append)


def test_offline_without_an_account(wandb, tmp_path, monkeypatch):
    assert start(tmp_path).mode == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert start(tmp_path, "old-id").mode == "online"
    assert [(options["mode"], options["id"], options["resume"]) for options in wandb.started] == [
        ("offline", wandb.started[0]["id"], None),
        ("online", "old-id", "allow"),
    ]
    assert len(wandb.started[0]["id"]) == 8
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert start(tmp_path).mode == "disabled"


def test_an_account_in_netrc_is_found(wandb, tmp_path, monkeypatch):
    file = tmp_path / "netrc"
    file.write_text("machine api.wandb.ai\n  login user\n  password key\n")
    file.chmod(0o600)
    assert not has_account()
    monkeypatch.setenv("NETRC", str(file))
    assert has_account()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_account()


def test_records_are_flat_and_steps_are_a_metric(wandb, tmp_path):
    sink = start(tmp_path)
    sink.log({"step": 2, "loss": 1.0, "scores": {"tnews": {"accuracy": 0.5}}})
    sink.close(failed=False)
    assert wandb.run.logged == [{"step": 2, "loss": 1.0, "scores/tnews/accuracy": 0.5}]
    assert wandb.run.metric == (("*",), {"step_metric": "step"}) and wandb.run.finished == 0
    assert flatten({}) == {}


def test_a_failure_on_the_way_is_said_once_and_stops_nothing(wandb, tmp_path):
    said = []
    sink = start(tmp_path, said=said)
    wandb.run.fails = True
    sink.log({"step": 1})
    wandb.run.fails = False
    sink.log({"step": 2})
    sink.close(failed=True)
    assert said == ["warning: wandb stopped (no network); metrics.jsonl goes on"]
    assert wandb.run.logged == [] and wandb.run.finished is None


def test_a_wandb_that_cannot_start_is_an_input_error(wandb, tmp_path):
    def refuse(**options):
        raise ValueError("api_key not configured")

    wandb.init = refuse
    with pytest.raises(InputError, match=r"api_key not configured.*WANDB_MODE=offline"):
        start(tmp_path)


def test_the_real_wandb_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    said = []
    for run_id in (None, "0a1b2c3d"):
        sink = start(tmp_path, run_id, said)
        sink.log({"step": 2, "task_loss": {"lcqmc": 0.625}})
        sink.close(failed=False)
    if said:
        pytest.skip(f"wandb's own process failed here: {said}")
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and any(folder.name.endswith("0a1b2c3d") for folder in folders)
    for folder in folders:
        (file,) = folder.glob("run-*.wandb")
        until = time.monotonic() + 60  # its own process writes the file, on a busy machine after `finish` has returned
        while b"lcqmc" not in file.read_bytes() and time.monotonic() < until:
            time.sleep(0.1)
        assert b"lcqmc" in file.read_bytes()
