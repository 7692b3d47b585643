import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mengzi_mt import __version__
from mengzi_mt.errors import InputError, RunError

COMMANDS = ["tasks", "prompts", "tokenizer", "train", "evaluate", "submit"]
# 0.5 s on a free machine; tests may share theirs with a training run
SLOWEST_HELP = 1.5


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


def test_help_answers_quickly():
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert python("-m", "mengzi_mt", "--help").returncode == 0
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < SLOWEST_HELP


def test_the_command_line_is_imported_without_heavy_modules():
    code = "import sys, mengzi_mt.cli.main; print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_help_names_every_command(command):
    shown = command("--help")
    assert shown.code == 0
    assert all(name in shown.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, name):
    shown = command(name, "--help")
    assert shown.code == 0
    assert "Usage:" in shown.out


def test_version(command):
    assert command("--version").out.strip() == __version__


@pytest.mark.parametrize("arguments", [("no-such-command",), ("tasks", "list", "--no-such-option"), ("evaluate",), ("train",)])
def test_wrong_usage_exits_with_two_and_shows_no_traceback(command, arguments):
    shown = command(*arguments)
    assert shown.code == 2
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(("error", "code"), [(RunError, 1), (InputError, 2)])
def test_errors_become_one_paragraph_and_an_exit_status(command, monkeypatch, error, code):
    def fail(*_):
        raise error("It does not work", where="here", fix="do it differently")

    monkeypatch.setattr("mengzi_mt.tasks.registry.get_task", fail)
    assert command("tasks", "show", "tnews").refused(code) == (
        "error: It does not work. Where: here. What to do: do it differently.\n"
    )


def test_debug_lets_the_error_through(command):
    from mengzi_mt.cli.main import app, run

    with pytest.raises(InputError, match="no task 'tnew'"):
        run(app, ["--debug", "tasks", "show", "tnew"])


@pytest.mark.parametrize("arguments", [("-m", "mengzi_mt", "--debug", "train", "no-such"), ("train.py", "no-such", "--debug")])
def test_debug_shows_the_traceback(arguments):
    root = Path(__file__).parents[2]
    environment = {key: value for key, value in os.environ.items() if key != "MENGZI_MT_DEBUG"}
    shown = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=root, env=environment, timeout=60)
    assert "Traceback (most recent call last)" in shown.stderr
    assert "There is no such recipe" in shown.stderr
    assert shown.returncode != 0


def test_a_closed_pipe_is_no_error():
    reader = "import sys; sys.stdin.readline()"
    pipe = f"'{sys.executable}' -m mengzi_mt prompts list --json | '{sys.executable}' -c '{reader}'; exit ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, "")
