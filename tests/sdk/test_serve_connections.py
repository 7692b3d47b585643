"""What only a real connection shows: slow ones, many, large bodies, readers that do not read, and the end."""

import json
import resource
import socket
import threading
import time

import httpx
import pytest

from mengzi_mt.sdk.serve_schemas import ErrorBody
from tests.sdk.serve_stub import JSON, StubModel, running

GOOD = {"task": "sentiment", "rows": [{"text": "房间很干净"}]}
HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def heard(connection):
    """All that comes until the other side closes."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def error_of(answer, status):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    return ErrorBody.model_validate_json(body).error.code


def test_a_head_that_never_ends_is_answered_and_closed():
    with running(StubModel(), head_timeout=0.5) as server, connect(server) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\n")
        began = time.monotonic()
        for _ in range(4):
            time.sleep(0.1)
            slow.sendall(b"x: y\r\n")
        assert error_of(heard(slow), 408) == "request_timeout"
        assert time.monotonic() - began < 10


def test_a_connection_that_says_nothing_is_closed_in_silence():
    with running(StubModel(), head_timeout=0.3) as server, connect(server) as quiet:
        assert heard(quiet) == b""


def test_a_second_head_that_never_ends_is_closed_too():
    with running(StubModel(), head_timeout=0.5) as server, connect(server) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.2)
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        assert b"408 Request Timeout" in heard(slow)


def test_a_body_that_trickles_is_answered_and_closed():
    with running(StubModel(), body_timeout=0.5) as server, connect(server) as slow:
        slow.sendall(HEAD + b"content-length: 1000\r\n\r\n")
        began, answer = time.monotonic(), b""
        slow.settimeout(0.1)
        while time.monotonic() - began < 15:
            try:
                slow.sendall(b" ")
                part = slow.recv(65_536)
                if not part:
                    break
                answer += part
            except TimeoutError:
                continue
            except OSError:
                break
        assert error_of(answer, 408) == "request_timeout"
        assert time.monotonic() - began < 10


def test_what_is_no_http_is_answered_in_json():
    with running(StubModel()) as server:
        for raw in (
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            b"GET / HTTX\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        ):
            with connect(server) as odd:
                odd.sendall(raw)
                assert error_of(heard(odd), 400) == "bad_request"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_hundred_megabytes_are_refused_at_once_and_held_nowhere(chunked):
    million = b" " * 1_000_000
    with running(StubModel()) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with connect(server) as large:
            large.sendall(HEAD + (b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: 100000000\r\n\r\n"))
            for _ in range(100):
                large.sendall(b"f4240\r\n" + million + b"\r\n" if chunked else million)
            if chunked:
                large.sendall(b"0\r\n\r\n")
            large.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = heard(large)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"body_too_large" in answer
        assert b"HTTP/1.1 200 OK" in answer  # the same connection goes on
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_hundreds_of_connections_beyond_the_limit_are_refused_and_the_others_served():
    with running(StubModel(), connections=100, head_timeout=30) as server:
        idle = [connect(server) for _ in range(400)]
        try:
            assert error_of(heard(idle[-1]), 503) == "too_many_connections"
            deadline = time.monotonic() + 10
            while len(server.server.server_state.connections) > 100 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(server.server.server_state.connections) == 100
            first = idle[0]
            first.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert heard(first).startswith(b"HTTP/1.1 200 OK")
        finally:
            for one in idle:
                one.close()
        deadline = time.monotonic() + 10
        while server.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert httpx.get(server.url + "/health").status_code == 200


def test_a_client_that_does_not_read_loses_its_connection():
    rows = {"task": "title", "rows": [{"text": "字" * 15_000}] * 60}
    with running(StubModel(), send_timeout=0.5) as server:
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.connect(("127.0.0.1", server.port))
        body = json.dumps(rows, ensure_ascii=False).encode()
        stuck.sendall(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        deadline = time.monotonic() + 20
        while (
            not server.service.worker.metrics.text().count(b'mengzi_mt_rows_total{task="title"} 60.0')
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        while server.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.server.server_state.connections
        stuck.close()


def test_rows_of_a_client_that_left_are_not_computed():
    model, gate = StubModel(), threading.Event()
    model.before = lambda rows: gate.wait(10)
    with running(model) as server:
        body = json.dumps(GOOD).encode()
        first, second = connect(server), connect(server)
        for one, task in ((first, b"sentiment"), (second, b"news_topic")):
            sent = body.replace(b"sentiment", task)
            one.sendall(HEAD + f"content-length: {len(sent)}\r\n\r\n".encode() + sent)
            deadline = time.monotonic() + 10
            while server.service.busy < (1 if one is first else 2) and time.monotonic() < deadline:
                time.sleep(0.01)
        second.close()
        deadline = time.monotonic() + 10
        while server.service.busy > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.service.worker.queue.rows == 0
        gate.set()
        assert first.recv(15) == b"HTTP/1.1 200 OK"
        first.close()
    assert [task for task, _ in model.calls] == ["sentiment"]


def test_a_signal_lets_what_is_at_hand_be_finished():
    model = StubModel(pause=0.6)
    with running(model) as server:
        answers = {}
        asking = threading.Thread(
            target=lambda: answers.update(first=httpx.post(server.url + "/v1/predict", json=GOOD, timeout=20))
        )
        asking.start()
        while not model.calls:
            time.sleep(0.01)
        server.server.handle_exit(15, None)
        assert httpx.get(server.url + "/ready").status_code == 503
        refused = httpx.post(server.url + "/v1/predict", json=GOOD)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        asking.join(20)
        assert answers["first"].status_code == 200
        server.thread.join(10)
        assert not server.thread.is_alive()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url + "/health")


def test_a_killed_worker_is_told_and_ends_the_server():
    model = StubModel()

    def die(rows):
        raise SystemExit

    model.before = die
    with running(model) as server:
        answer = httpx.post(server.url + "/v1/predict", content=json.dumps(GOOD), headers=JSON, timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "worker_died")
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_pieces_come_as_they_are_written():
    with (
        running(StubModel(pause=0.1)) as server,
        httpx.stream("POST", server.url + "/v1/generate", json={"prompts": ["一二三四五六"], "stream": True}, timeout=20) as answer,
    ):
        times = [time.monotonic() for _ in answer.iter_lines() if True]
    assert times[-1] - times[0] > 0.25
