"""What `make demo` promises: the micro model learns the three easy tasks, shown on the third that it did not see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EASY = ("chnsenticorp", "thucnews_title", "kuake_qic")


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, timeout=1500)


@pytest.mark.slow
def test_the_demo_ends_above_chance_on_the_held_out_third(tmp_path):
    run("train.py", "recipes/demo.yaml", f"output={tmp_path / 'run'}")
    tasks = ",".join(EASY)
    run(
        *("evaluate.py", str(tmp_path / "run" / "final"), "--suite", "demo", "--tasks", tasks, "--data", "sample"),
        *("--max-templates", "3", "--output", str(tmp_path / "results")),
    )
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["data"]["source"] == "sample"
    assert [task["task"] for task in results["tasks"]] == list(EASY)
    for task in results["tasks"]:
        assert task["rows"] >= 100
        assert "validation side of a hash cut" in task["provenance"]["cut"]
        assert max(template["p_above_chance"] for template in task["templates"]) < 0.01
        assert task["score"] > task["majority"]
    assert (tmp_path / "results" / "report.html").is_file()
