import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mengzi_mt.errors import InputError, RunError
from mengzi_mt.pretraining import ablation_processes
from mengzi_mt.pretraining.ablation_processes import Job, run_side_by_side


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that other interpreters find: it does what its argument says."""
    (tmp_path / "acting.py").write_text(
        textwrap.dedent(
            """
            import json, os, sys, threading, time
            job = json.loads(sys.argv[1])
            def watch():
                while os.read(0, 1):
                    pass
                open(job["folder"] + "/asked-" + job["name"], "w").close()
                os._exit(143)
            threading.Thread(target=watch, daemon=True).start()
            open(job["folder"] + "/began-" + job["name"], "w").write(os.environ.get("OMP_NUM_THREADS", "none"))
            time.sleep(job["seconds"])
            print(job.get("says", ""), file=sys.stderr)
            sys.exit(job.get("status", 0))
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(ablation_processes, "_POLL", 0.02)
    return "acting"


def job(folder, name, seconds=0.0, **more):
    return Job(name, {"folder": str(folder), "name": name, "seconds": seconds, **more}, folder / f"{name}.log")


def test_jobs_run_in_order_so_many_at_a_time(tmp_path, module):
    seen = []
    jobs = [job(tmp_path, name, 0.1) for name in "abcd"]
    run_side_by_side(jobs, 2, lambda running, done: seen.append((sorted(running), sorted(done))), module)
    assert seen[-1] == ([], list("abcd"))
    assert all(len(running) <= 2 for running, _ in seen)
    assert (tmp_path / "began-d").read_text() == "1"


@pytest.mark.parametrize(("status", "kind"), [(2, InputError), (1, RunError)])
def test_a_failure_names_what_the_process_said_and_stops_the_others(tmp_path, module, status, kind):
    jobs = [job(tmp_path, "long", 60.0), job(tmp_path, "bad", 0.3, status=status, says="error: The file is not there.")]
    with pytest.raises(kind, match=r"'bad' failed: The file is not there.*bad\.log"):
        run_side_by_side(jobs, 2, lambda *_: None, module)
    assert (tmp_path / "asked-long").exists()


def test_a_signal_lets_the_processes_save_and_ends_this_one(tmp_path, module):
    def show(running, done):
        if "short" in done:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match="143"):
        run_side_by_side([job(tmp_path, "long", 60.0), job(tmp_path, "short", 0.3)], 2, show, module)
    assert (tmp_path / "asked-long").exists()


def test_a_killed_parent_takes_its_processes_along(tmp_path, module):
    script = (
        "import json, sys; from pathlib import Path; from mengzi_mt.pretraining.ablation_processes import Job, run_side_by_side; "
        "f = Path(sys.argv[1]); "
        "run_side_by_side([Job('long', {'folder': str(f), 'name': 'long', 'seconds': 60}, f / 'x.log')], 1, print, 'acting')"
    )
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}) as parent:
        for _ in range(600):
            if (tmp_path / "began-long").exists():
                break
            time.sleep(0.1)
        parent.kill()
    for _ in range(100):
        if (tmp_path / "asked-long").exists():
            return
        time.sleep(0.1)
    pytest.fail(json.dumps(sorted(path.name for path in tmp_path.iterdir())))
