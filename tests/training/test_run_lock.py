import subprocess
import sys

import pytest

from mengzi_mt.config import TrainingSettings
from mengzi_mt.errors import InputError
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.run_lock import sole_writer


@pytest.fixture
def devices():
    return Devices(TrainingSettings(steps=1, device="cpu"))


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path, devices):
    folder = tmp_path / "runs" / "one"
    with sole_writer(folder, devices):
        with pytest.raises(InputError, match="Another process is writing to the run folder"), sole_writer(folder, devices):
            pass
        with sole_writer(tmp_path / "runs" / "two", devices):
            pass
    with sole_writer(folder, devices):
        assert list(folder.iterdir()) == []


def test_the_lock_ends_with_its_process(tmp_path, devices):
    code = f"""
import time
from pathlib import Path
from mengzi_mt.training.run_lock import _locked
assert _locked(Path({str(tmp_path)!r})) >= 0
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError), sole_writer(tmp_path, devices):
            pass
    finally:
        process.kill()
        process.wait()
    with sole_writer(tmp_path, devices):
        pass
