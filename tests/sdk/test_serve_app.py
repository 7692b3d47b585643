import asyncio
import json
import threading
import time

import httpx
import pytest
from pydantic import TypeAdapter

from mengzi_mt.errors import InputError
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.serve_app import create_app
from mengzi_mt.sdk.serve_schemas import ErrorBody, PredictRequest, PredictResponse
from mengzi_mt.sdk.serve_service import Service
from mengzi_mt.sdk.serve_settings import ServeSettings
from tests.sdk.serve_stub import JSON, StubModel

GOOD = {"task": "sentiment", "rows": [{"text": "房间很干净"}]}


def talk(*conversation, model=None, token=None, **settings):
    """Runs coroutines that take a client, together, against a server of their own; what they return."""

    async def main():
        service = Service(model or StubModel(), ServeSettings(**settings), "stub")
        transport = httpx.ASGITransport(create_app(service, token), raise_app_exceptions=False)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=20) as client:
                client.service = service
                return await asyncio.gather(*(one(client) for one in conversation))
        finally:
            service.worker.end(5)

    return asyncio.run(main())


def post(path, body, **more):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def asked(client):
        return await client.post(path, content=content, **{"headers": JSON, **more})

    return asked


def get(path, **more):
    async def asked(client):
        return await client.get(path, **more)

    return asked


def refused(response, status, code):
    assert response.status_code == status, response.text
    error = ErrorBody.model_validate_json(response.content).error
    assert error.code == code
    assert "Traceback" not in response.text
    return error


def test_every_task_answers_its_own_examples():
    listed = talk(get("/v1/tasks"))[0].json()["tasks"]
    assert [task["name"] for task in listed] == list(TASKS)
    examples = [example for task in listed for example in task["examples"]]
    answers = talk(*(post("/v1/predict", example) for example in examples))
    for example, answer in zip(examples, answers, strict=True):
        assert answer.status_code == 200, answer.text
        found = PredictResponse.model_validate_json(answer.content)
        assert found.task == example["task"]
        assert len(found.results) == len(example["rows"])


def test_many_rows_and_several_templates():
    body = {**GOOD, "rows": [{"text": f"第{n}条"} for n in range(7)], "templates": 3, "vote": "majority"}
    found = talk(post("/v1/predict", body))[0].json()["results"]
    assert len(found) == 7
    assert found[0]["templates"] == list(TASKS["sentiment"].template_names()[:3])


def test_requests_are_computed_together_and_get_their_own_rows():
    model, gate = StubModel(), threading.Event()
    model.before = lambda rows: gate.wait(10)
    bodies = [{"task": "title", "rows": [{"text": f"文{n}之{row}"} for row in range(1 + n % 3)]} for n in range(40)]

    async def opened(client):
        while client.service.busy < len(bodies):
            await asyncio.sleep(0.01)
        gate.set()

    answers = talk(*(post("/v1/predict", body) for body in bodies), opened, model=model, batch_rows=256)[:-1]
    for body, answer in zip(bodies, answers, strict=True):
        assert [one["text"] for one in answer.json()["results"]] == [row["text"][::-1] for row in body["rows"]]
    assert sum(rows for _, rows in model.calls) == sum(len(body["rows"]) for body in bodies)
    assert len(model.calls) <= 2


def test_one_bad_row_does_not_spoil_its_neighbours():
    model = StubModel(pause=0.02)

    def check(rows):
        if any(row["text"] == "坏" for row in rows):
            raise InputError("Bad row", where="row 0")

    model.before = check
    good, bad, other = talk(
        *(post("/v1/predict", {"task": "title", "rows": [{"text": text}]}) for text in ("好", "坏", "也好")), model=model
    )
    assert (good.status_code, other.status_code) == (200, 200)
    assert refused(bad, 422, "invalid_input").message == "Bad row"


def test_a_fault_is_answered_without_its_text(caplog):
    model = StubModel()
    model.before = lambda rows: {}["secret/path"]
    error = refused(talk(post("/v1/predict", GOOD), model=model)[0], 500, "internal")
    assert "secret" not in error.message
    name = error.message.rstrip(".").split()[-1]
    assert any(name in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"task": "sentiment"}, "rows"),
        ({"task": "sentiment", "rows": []}, "rows"),
        ({"task": "sentiment", "rows": [{}]}, "rows.0.text"),
        ({"task": "sentiment", "rows": [{"text": ""}]}, "rows.0.text"),
        ({"task": "sentiment", "rows": [{"text": " \u3000\u200b\u0000"}]}, "rows.0.text"),
        ({"task": "sentiment", "rows": [{"text": 1}]}, "rows.0.text"),
        ({"task": "sentiment", "rows": [{"text": None}]}, "rows.0.text"),
        ({"task": "sentiment", "rows": [{"text": "好", "path": "/etc/passwd"}]}, "rows.0.path"),
        ({"task": "sentiment", "rows": [{"text": "好"}] * 257}, "rows"),
        ({"task": "sentiment", "rows": [{"text": "好" * 100_001}]}, "rows.0.text"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "labels": ["a", "b"]}, "labels"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "prompt": "{{ text }}"}, "prompt"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "templates": 0}, "templates"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "templates": True}, "templates"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "templates": "../../etc/passwd"}, "templates"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "templates": "{{ 7*7 }}"}, "templates"),
        ({"task": "classify", "rows": [{"text": "好"}], "labels": ["a"]}, "labels"),
        ({"task": "classify", "rows": [{"text": "好"}], "labels": ["a", "a"]}, "labels"),
        ({"task": "title", "rows": [{"text": "好"}], "beams": 99}, "beams"),
        ({"task": "title", "rows": [{"text": "好"}], "no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"task": "sentiment", "rows": [{"text": "好"}], "no_repeat_ngram_size": 3}, "no_repeat_ngram_size"),
        ({"rows": []}, "body"),
        ([], "body"),
        ("x", "body"),
    ],
)
def test_wrong_input_is_refused_by_its_place(body, where):
    error = refused(talk(post("/v1/predict", body))[0], 422, "invalid_input")
    assert error.where.startswith(where)


def test_an_unknown_task_names_the_near_ones():
    error = refused(talk(post("/v1/predict", {"task": "sentimnt", "rows": []}))[0], 422, "invalid_input")
    assert "'sentiment'" in error.fix


@pytest.mark.parametrize("raw", [
    b'{"task":"sentiment","rows":[{"text":"\\ud800"}]}',
    b'{"task":"sentiment","rows":[{"text":"\\udc00\\ud800 ok"}]}',
    b'{"task":"\\ud800","rows":[]}',
    b'{"task":"sentiment","rows":[{"text":"a"}],"\\ud800":1}',
    b'{"task":"sentiment","rows":[{"\\ud800":"a"}]}',
])  # fmt: skip
def test_lone_surrogates_are_refused(raw):
    response = talk(post("/v1/predict", raw))[0]
    refused(response, 422, "invalid_input")
    response.content.decode("utf-8")


@pytest.mark.parametrize(
    "text", ["😀👨‍👩‍👧", "a\u0000b\u001b[31m", "<script>alert(1)</script>", "{{ x }}|||%}", "\u202eabc好", "\ufeff好"]
)
def test_odd_texts_are_answered(text):
    answer = talk(post("/v1/predict", {"task": "title", "rows": [{"text": text}]}))[0]
    assert answer.json()["results"][0]["text"] == text[::-1]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe\x00", b'{"task": NaN', b"[" * 100_000, b"9" * 10_000, b'{"a":1}x'])
def test_what_is_no_json_is_refused(raw):
    response = talk(post("/v1/predict", raw))[0]
    assert response.status_code in (400, 422)
    ErrorBody.model_validate_json(response.content)
    assert response.status_code == 400 or raw == b""


def test_other_content_types_are_refused():
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/x-pickle"):
        refused(talk(post("/v1/predict", b"{}", headers={"Content-Type": kind}))[0], 415, "unsupported_media_type")
    assert talk(post("/v1/predict", GOOD, headers={"Content-Type": "application/json; charset=utf-8"}))[0].status_code == 200


def test_unknown_addresses_and_methods():
    refused(talk(get("/v1/../etc/passwd"))[0], 404, "not_found")
    for path in ("/v1/tasks", "/health", "/ready", "/metrics"):  # whatever the body says it is
        refused(talk(post(path, b"x", headers={"Content-Type": "text/plain"}))[0], 405, "method_not_allowed")
    refused(talk(post("/v1/nothing", b"x", headers={"Content-Type": "text/plain"}))[0], 404, "not_found")
    response = talk(get("/v1/predict"))[0]
    refused(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"


def test_a_large_body_is_refused_by_its_head_and_by_its_bytes():
    async def chunks():
        for _ in range(100):
            yield b" " * 1_000

    async def streamed(client):
        return await client.post("/v1/predict", content=chunks(), headers=JSON)

    for response in talk(post("/v1/predict", b" " * 20_000), streamed, body_bytes=10_000):
        refused(response, 413, "body_too_large")


def test_a_full_queue_gives_429_and_the_rest_is_answered():
    model = StubModel(pause=0.3)
    answers = talk(
        *(post("/v1/predict", {**GOOD, "rows": GOOD["rows"] * 5}) for _ in range(8)), model=model, queue_rows=10, batch_rows=5
    )
    states = [answer.status_code for answer in answers]
    assert set(states) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            refused(answer, 429, "queue_full")
            assert int(answer.headers["Retry-After"]) >= 1


def test_no_answer_in_time_gives_504_and_leaves_nothing_waiting():
    model = StubModel(pause=0.5)

    async def conversation(client):
        first = asyncio.create_task(post("/v1/predict", GOOD)(client))
        await asyncio.sleep(0.1)
        late = await post("/v1/predict", {"task": "title", "rows": [{"text": "晚"}]})(client)
        return late, client.service.worker.queue.rows, await first

    ((late, waiting, first),) = talk(conversation, model=model, request_timeout=0.3)
    refused(late, 504, "deadline")
    refused(first, 504, "deadline")
    assert waiting == 0
    assert [task for task, _ in model.calls] == ["sentiment"]


def test_a_dead_worker_is_noticed():
    model = StubModel(pause=0.05)

    def die(rows):
        raise SystemExit("killed")

    model.before = die

    async def conversation(client):
        answers = await asyncio.gather(
            *(post("/v1/predict", {"task": name, "rows": [{"text": "好"}]})(client) for name in ("title", "sentiment"))
        )
        later = await post("/v1/predict", GOOD)(client)
        return [*answers, later, await get("/health")(client), await get("/ready")(client)]

    for response in talk(conversation, model=model)[0]:
        refused(response, 503, "worker_died")


def test_draining_refuses_new_work_and_finishes_what_is_at_hand():
    async def conversation(client):
        first = asyncio.create_task(post("/v1/predict", GOOD)(client))
        await asyncio.sleep(0.1)
        client.service.drain()
        return await post("/v1/predict", GOOD)(client), await get("/ready")(client), await get("/health")(client), await first

    ((new, ready, health, first),) = talk(conversation, model=StubModel(pause=0.4))
    refused(new, 503, "shutting_down")
    refused(ready, 503, "shutting_down")
    assert (health.status_code, first.status_code) == (200, 200)


def test_the_token_is_asked_for_before_the_body_is_read():
    token = "geheim-0123456789abcdef"
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Authorization": f"Bearer {token}x"},
    ):
        for response in talk(
            post("/v1/predict", b"{", headers={**JSON, **headers}),
            get("/v1/tasks", headers=headers),
            get("/metrics", headers=headers),
            token=token,
        ):
            refused(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"
    right = {"Authorization": f"bearer {token}"}
    states = [
        one.status_code
        for one in talk(
            post("/v1/predict", GOOD, headers={**JSON, **right}),
            get("/v1/tasks", headers=right),
            get("/metrics", headers=right),
            get("/"),
            get("/health"),
            token=token,
        )
    ]
    assert states == [200] * 5
    assert "securitySchemes" in talk(get("/openapi.json"), token=token)[0].json()["components"]


def events(text):
    return [
        (block.split("\n")[0].removeprefix("event: "), json.loads(block.split("\n")[1].removeprefix("data: ")))
        for block in text.strip().split("\n\n")
    ]


def test_answers_are_streamed_in_pieces():
    response = talk(post("/v1/generate", {"prompts": ["你好吗", "在"], "stream": True}))[0]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert events(response.text) == [
        ("piece", {"row": 0, "text": "你"}), ("piece", {"row": 0, "text": "好"}), ("piece", {"row": 0, "text": "吗"}),
        ("done", {"row": 0, "text": "你好吗"}), ("piece", {"row": 1, "text": "在"}), ("done", {"row": 1, "text": "在"}),
    ]  # fmt: skip


def test_what_has_no_pieces_comes_in_one():
    body = {"task": "title", "rows": [{"text": "甲乙"}], "templates": 2, "stream": True}
    assert events(talk(post("/v1/predict", body))[0].text) == [
        ("piece", {"row": 0, "text": "乙甲"}),
        ("done", {"row": 0, "text": "乙甲"}),
    ]


def test_streams_and_batches_share_the_model():
    model, done = StubModel(pause=0.02), []

    async def streamed(client):
        await post("/v1/generate", {"prompts": ["字" * 40], "stream": True})(client)
        done.append("stream")

    async def asked(client):
        await asyncio.sleep(0.1)
        await post("/v1/predict", GOOD)(client)
        done.append("batch")

    talk(streamed, asked, model=model)
    assert done == ["batch", "stream"]


def test_too_many_streams_are_refused():
    model, gate = StubModel(), threading.Event()

    def stream(prompt, **settings):
        gate.wait(20)
        yield prompt

    model.stream = stream

    async def conversation(client):
        asked = [asyncio.create_task(post("/v1/generate", {"prompts": ["字"], "stream": True})(client)) for _ in range(4)]
        while sum(one.done() for one in asked) < 2:
            await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(*asked)

    answers = talk(conversation, model=model, streams=2)[0]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]


def test_a_fault_in_a_stream_is_an_event():
    model = StubModel()

    def stream(prompt, **settings):
        yield "好"
        raise KeyError("secret")

    model.stream = stream
    found = events(talk(post("/v1/generate", {"prompts": ["x"], "stream": True}), model=model)[0].text)
    assert [name for name, _ in found] == ["piece", "error"]
    assert found[1][1]["error"]["code"] == "internal"
    assert "secret" not in str(found)


def test_metrics_count_requests_rows_and_batches():
    async def conversation(client):
        await post("/v1/predict", GOOD)(client)
        await get("/nirgends/1")(client)
        return (await get("/metrics")(client)).text

    text = talk(conversation)[0]
    for line in (
        'mengzi_mt_requests_total{method="POST",path="/v1/predict",status="200"} 1.0',
        'mengzi_mt_requests_total{method="GET",path="other",status="404"} 1.0',
        'mengzi_mt_rows_total{task="sentiment"} 1.0', "mengzi_mt_waiting_rows 0.0", "mengzi_mt_healthy 1.0",
        "mengzi_mt_batch_rows_count 1.0",
    ):  # fmt: skip
        assert line in text.splitlines()


def test_every_answer_has_the_safe_headers_and_the_page_its_policy():
    for response in talk(get("/"), get("/nothing"), post("/v1/predict", GOOD)):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
    page = talk(get("/"))[0]
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text


def test_the_document_has_chinese_examples_that_are_valid_and_every_refusal():
    document = talk(get("/openapi.json"))[0].json()
    predict = document["paths"]["/v1/predict"]["post"]
    examples = predict["requestBody"]["content"]["application/json"]["examples"]
    assert list(examples) == list(TASKS)
    for example in examples.values():
        TypeAdapter(PredictRequest).validate_python(example["value"])
    assert {"200", "400", "408", "413", "415", "422", "429", "500", "503", "504"} <= set(predict["responses"])
    assert "情感分类" in json.dumps(document, ensure_ascii=False)


def test_the_event_loop_answers_while_the_model_works():
    model, gate = StubModel(), threading.Event()
    model.before = lambda rows: gate.wait(5)

    async def conversation(client):
        first = asyncio.create_task(post("/v1/predict", GOOD)(client))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        health = await get("/health")(client)
        took = time.monotonic() - began
        gate.set()
        return health.status_code, took, (await first).status_code

    ((health, took, first),) = talk(conversation, model=model)
    assert (health, first) == (200, 200)
    assert took < 2


@pytest.mark.parametrize(("where", "told"), [("text, row 2", "text, row 2"), ("/srv/models/a/config.json", None), (None, None)])
def test_where_the_server_keeps_its_files_is_not_told(where, told):
    from mengzi_mt.sdk.serve_app import as_refusal

    body = json.loads(as_refusal(InputError("It is wrong", where=where, fix="mend it")).body())
    assert body["error"]["where"] == told and body["error"]["message"] == "It is wrong"
