import json
import os
import subprocess
import sys

from mengzi_mt.training.run_status import outcome_now, read_metrics, read_status, write_status


def test_a_status_of_a_dead_process_is_an_interrupted_run(tmp_path):
    code = "import sys, pathlib; from mengzi_mt.training.run_status import write_status; "
    code += "write_status(pathlib.Path(sys.argv[1]), 'running', 3, 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    status = read_status(tmp_path)
    assert (status["outcome"], status["step"]) == ("running", 3)
    assert outcome_now(status) == "interrupted"


def test_a_process_with_a_reused_number_is_another(tmp_path):
    write_status(tmp_path, "running", 3, 9)
    status = read_status(tmp_path)
    assert status["pid"] == os.getpid() and outcome_now(status) == "running"
    assert outcome_now({**status, "process_started": 1}) == "interrupted"


def test_a_run_on_another_machine_is_judged_by_its_last_word(tmp_path):
    write_status(tmp_path, "running", 3, 9)
    status = {**read_status(tmp_path), "host": "elsewhere", "pid": 1}
    assert outcome_now(status) == "running"
    assert outcome_now({**status, "updated": "2020-01-01T00:00:00+00:00"}) == "interrupted"
    assert outcome_now({**status, "updated": "yesterday"}) == "interrupted"


def test_a_damaged_status_or_metrics_file_is_read_as_far_as_it_goes(tmp_path):
    assert read_status(tmp_path) == {}
    (tmp_path / "status.json").write_text('{"outcome": "fin')
    assert read_status(tmp_path) == {}
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n[2]\n{"step": "x"}\n\xff\n' + json.dumps({"step": 2}).encode())
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
