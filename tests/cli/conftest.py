import shutil
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """Exit status and the two outputs of a command."""

    code: int
    out: str
    err: str

    def refused(self, code=2):
        """The one paragraph on standard error, after checking that there is no more than that."""
        assert self.code == code, self
        assert "Traceback" not in self.err
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        return self.err


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs ``mengzi-mt`` in this process, in an empty folder: ``command("tasks", "list")``."""
    from mengzi_mt.cli.main import app, run

    monkeypatch.chdir(tmp_path)
    for name in ("MENGZI_MT_DATA", "MENGZI_MT_DEBUG"):
        monkeypatch.setenv(name, "")  # not delenv: what a command sets is to be undone, too

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run(app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(caught.value.code or 0, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def saved_checkpoint(tmp_path_factory, tokenizer):
    """A micro T5 with random weights, saved as a training run saves it."""
    from mengzi_mt.models.t5 import build_model
    from mengzi_mt.training.checkpoint import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "final"
    manifest = {"recipe": {"name": "tiny", "model": {"shape": "micro"}}, "step": 7, "counters": {"tokens": 1234}}
    save_checkpoint(folder, build_model("micro", len(tokenizer)), tokenizer, manifest)
    return folder


@pytest.fixture
def checkpoint(saved_checkpoint, tmp_path):
    """A copy of the checkpoint that a test may damage."""
    return shutil.copytree(saved_checkpoint, tmp_path / "checkpoint")
