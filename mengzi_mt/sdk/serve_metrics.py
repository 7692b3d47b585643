"""What the server counts, in the form that Prometheus reads. Labels are bounded: known addresses, known tasks, statuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one server; several may live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("mengzi_mt_requests", "Requests answered.", ["method", "path", "status"], registry=self._registry)
        self._latency = Histogram(
            "mengzi_mt_request_seconds", "From a request's head to the end of its answer.", ["path"], buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._rows = Counter("mengzi_mt_rows", "Rows answered by the model.", ["task"], registry=self._registry)
        self._batch_rows = Histogram("mengzi_mt_batch_rows", "Rows of a batch.", buckets=ROWS, registry=self._registry)
        self._batch_seconds = Histogram(
            "mengzi_mt_batch_seconds", "Time of a batch in the model.", ["task"], buckets=SECONDS, registry=self._registry
        )
        self._waited = Histogram(
            "mengzi_mt_wait_seconds",
            "From a job's coming to its being taken by the model.",
            buckets=SECONDS,
            registry=self._registry,
        )

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A number that is read when somebody asks for it."""
        Gauge(f"mengzi_mt_{name}", meaning, registry=self._registry).set_function(value)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def batch(self, task: str, rows: int, seconds: float, waited: Sequence[float]) -> None:
        """The model answered a batch, whose jobs had waited so long."""
        self._rows.labels(task).inc(rows)
        self._batch_rows.observe(rows)
        self._batch_seconds.labels(task).observe(seconds)
        for one in waited:
            self._waited.observe(one)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
