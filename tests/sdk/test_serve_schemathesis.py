"""schemathesis makes requests from the document of the API, right ones and wrong ones, and finds no answer that breaks it."""

import subprocess
import sys

import pytest

from tests.sdk.serve_stub import StubModel, running

pytest.importorskip("schemathesis")


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "geheim-0123456789abcdef"])
def test_no_answer_breaks_the_document(token, tmp_path):
    with running(StubModel(), token=token) as server:
        header = ["--header", f"Authorization: Bearer {token}"] if token else []
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", f"{server.url}/openapi.json",
            "--phases", "examples,fuzzing", "--max-examples", "20", "--seed", "8", "--no-color", *header,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    assert "Selected: 6/6" in done.stdout
