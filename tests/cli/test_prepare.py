import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def recipe(tmp_path, tokenizer_dir):
    """A recipe on the bundled samples of two tasks, prepared under ``tmp_path/prepared``."""
    values = {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "data": {"source": "sample", "validation_rows": 0, "prepared_dir": str(tmp_path / "prepared")},
        "model": {"shape": "micro", "tokenizer": str(tokenizer_dir)},
        "mixture": {"tasks": ["lcqmc", "finre"]},
        "training": {"steps": 2, "batch": 4},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_table_says_what_was_made_and_where(command, recipe, tmp_path):
    shown = command("prepare", recipe, "--workers", 1)
    assert shown.code == 0, shown.err
    assert "examples to be made, about" in shown.err
    assert "(100%)" in shown.err
    lines = {line.split()[0]: line.split() for line in shown.out.splitlines() if line.strip()}
    assert lines["lcqmc"][-1] == lines["finre"][-1] == "made"
    assert shown.out.splitlines()[-1] == f"in {tmp_path / 'prepared'}"
    again = command("prepare", recipe, "--workers", 1)
    assert again.err == ""
    assert again.out.count("reused") == 2


def test_json_counts_are_those_of_the_folders(command, recipe, tmp_path):
    result = json.loads(command("prepare", recipe, "--workers", 1, "--json").out)
    assert result["root"] == str(tmp_path / "prepared")
    for task in result["tasks"]:
        assert task["examples"] + task["absent"] + task["skipped"] == task["rows"] * task["templates"]
        assert task["bytes"] == sum(path.stat().st_size for path in Path(task["folder"]).glob("*.arrow"))
        assert task["reused_shards"] == 0


def test_by_default_the_cache_holds_them(command, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MENGZI_MT_CACHE", str(tmp_path / "cache"))
    assert command("prepare", recipe, "data.prepared_dir=null", "--workers", 1).code == 0
    assert len(list((tmp_path / "cache/prepared").iterdir())) == 2


def test_a_full_disk_is_refused_before_any_work(command, recipe, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr("mengzi_mt.data.prepare.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    assert "the disk has 0.00 GB left" in command("prepare", recipe).refused()
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "spark"), "Unknown engine 'spark'"),
        (("mixture.tasks=[lcqmcc]",), "Did you mean 'lcqmc'"),
        (("mixture.tasks=[tnews]",), "trains on zero-shot tasks: tnews"),
        (("data.prepared=x",), "Did you mean 'prepared_dir'"),
        (("--data", "files"), "No data folder was given"),
    ],
)
def test_bad_input(command, recipe, arguments, message):
    assert message in command("prepare", recipe, *arguments).refused()


@pytest.mark.slow
def test_killed_preparation_leaves_no_process_and_goes_on(recipe, tmp_path):
    """SIGKILL of the parent: its processes end, and what is finished counts."""
    overrides = ["mixture.tasks=[lcqmc, finre, cmrc2018, kdconv, cluener2020, c3]"]
    script = "import mengzi_mt.data.prepared as p; p.SHARD_EXAMPLES = 30; from mengzi_mt.cli.main import main; main()"
    arguments = [sys.executable, "-c", script, "prepare", str(recipe), *overrides, "--workers", "2", "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and len(list((tmp_path / "prepared").rglob("*.arrow"))) < 3:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)  # ends when no process holds the pipes
    done = subprocess.run(arguments, capture_output=True, check=True)
    result = json.loads(done.stdout)
    shards = sum(task["shards"] for task in result["tasks"])
    assert 3 <= sum(task["reused_shards"] for task in result["tasks"]) <= shards
    assert not list((tmp_path / "prepared").rglob("*.unfinished"))


def test_choices_that_vary_cannot_be_prepared(command, recipe):
    refused = command("prepare", recipe, "mixture.vary_choices=0.5")
    assert refused.code == 2
    assert "mixture.vary_choices" in refused.err
