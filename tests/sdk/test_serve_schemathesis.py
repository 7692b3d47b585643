"""schemathesis makes requests from the document of the API, right ones and wrong ones, and finds no answer that breaks it."""

import time

import pytest
from hypothesis import HealthCheck, settings

from tests.sdk.serve_stub import StubModel, running

schemathesis = pytest.importorskip("schemathesis")
SECONDS = 8.0
"""For each operation; what comes later is not asked."""


@pytest.fixture(scope="module")
def server():
    with running(StubModel()) as found:
        yield found


schema = schemathesis.pytest.from_fixture("document")
began: dict[str, float] = {}


@pytest.fixture(scope="module")
def document(server):
    return schemathesis.openapi.from_url(server.url + "/openapi.json")


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_no_answer_breaks_the_document(case):
    if time.monotonic() - began.setdefault(case.operation.label, time.monotonic()) < SECONDS:
        case.call_and_validate()
