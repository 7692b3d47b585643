"""schemathesis makes requests from the document of the API, right ones and wrong ones, and finds no answer that breaks it."""

import subprocess
import sys

import pytest

from tests.sdk.serve_stub import StubModel, running

pytest.importorskip("schemathesis")


TOKENS = [None, "geheim-0123456789abcdef"]


def tried(token, folder, phases, *options):
    with running(StubModel(), token=token) as server:
        header = ["--header", f"Authorization: Bearer {token}"] if token else []
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", f"{server.url}/openapi.json",
            "--phases", phases, "--seed", "8", "--no-color", *options, *header,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("token", TOKENS)
def test_no_answer_breaks_the_document(token, tmp_path):
    assert "Selected: 6/6" in tried(token, tmp_path, "examples,fuzzing", "--max-examples", "20")


@pytest.mark.slow
@pytest.mark.parametrize("token", TOKENS)
def test_no_edge_of_the_document_breaks_it(token, tmp_path):
    without = ["--exclude-path", "/v1/predict"] if token else []  # its 900 cases take a minute and a half, so once
    assert f"Selected: {6 - len(without) // 2}/6" in tried(token, tmp_path, "coverage", *without)
