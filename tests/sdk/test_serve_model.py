"""The server with a trained model: answers of requests that are computed together are the library's."""

import asyncio
import os
import signal
import subprocess
import sys

import httpx
import pytest

from mengzi_mt.resources import resource_dir
from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.sdk.serve_app import create_app
from mengzi_mt.sdk.serve_examples import EXAMPLES, LABELS
from mengzi_mt.sdk.serve_service import Service
from mengzi_mt.sdk.serve_settings import ServeSettings

MODEL = resource_dir("models") / "mengzi-mt-mini"


def close(found, wanted):
    if isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=2e-4)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            close(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            close(one, other)
    else:
        assert found == wanted


@pytest.fixture(scope="module")
def mengzi():
    if not MODEL.exists():
        pytest.skip(f"there is no {MODEL}")
    return Mengzi.load(MODEL, device="cpu")


def test_requests_computed_together_answer_as_the_library_does_one_by_one(mengzi):
    tasks = ("sentiment", "classify", "entities", "title")
    bodies = [
        {"task": task, "rows": [dict(row)], **({"labels": list(LABELS)} if task == "classify" else {}),
         **({"max_new_tokens": 12} if task in ("entities", "title") else {})}
        for task in tasks for row in (*EXAMPLES[task], *EXAMPLES["news_topic"])
    ]  # fmt: skip
    wanted = []
    for body in bodies:
        options = {key: body[key] for key in ("labels", "max_new_tokens") if key in body}
        wanted += [result.to_dict() for result in mengzi.predict(body["task"], body["rows"], **options)]

    async def main():
        service = Service(mengzi, ServeSettings(batch_wait=0.2), "mengzi-mt-mini")
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=120) as client:
            answers = await asyncio.gather(*(client.post("/v1/predict", json=body) for body in bodies))
            streamed = await client.post("/v1/generate", json={"prompts": ["你好"], "max_new_tokens": 8, "stream": True})
        service.worker.end(5)
        return answers, streamed.text

    answers, streamed = asyncio.run(main())
    for answer, result in zip(answers, wanted, strict=True):
        assert answer.status_code == 200, answer.text
        close(answer.json()["results"], [result])
    assert mengzi.generate("你好", max_new_tokens=8).text in streamed


@pytest.mark.slow
def test_the_command_serves_and_ends_with_a_signal():
    if not MODEL.exists():
        pytest.skip(f"there is no {MODEL}")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "mengzi_mt", "serve", str(MODEL), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    try:
        address = process.stderr.readline().split()[0]
        answer = httpx.post(address + "/v1/predict", json={"task": "sentiment", "rows": [{"text": "很好"}]}, timeout=60)
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
