"""What the server answers where it cannot give a result: one form of JSON for every failure, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MEANINGS: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is no JSON."),
    "bad_request": (400, "The request is no proper HTTP, or its body cannot be read."),
    "unauthorized": (401, "The bearer token is missing or wrong."),
    "not_found": (404, "There is no such address."),
    "method_not_allowed": (405, "The address knows other methods; `Allow` names them."),
    "request_timeout": (408, "Head or body of the request came too slowly."),
    "body_too_large": (413, "The body is larger than the server takes."),
    "unsupported_media_type": (415, "The body is not declared as application/json."),
    "invalid_input": (422, "The JSON does not say what the task needs; names the place."),
    "queue_full": (429, "Too much waits already; `Retry-After` says when to come again, in seconds."),
    "internal": (500, "A fault of the server; its log has it under the id of the message."),
    "too_many_connections": (503, "All connections, or all room for bodies, are taken."),
    "shutting_down": (503, "The server finishes what it has and takes nothing new."),
    "worker_died": (503, "The thread that owns the model has ended; the server is about to end, too."),
    "deadline": (504, "No answer in time; the request was dropped."),
}
"""Every code with its status and what it means."""


class ServeError(Exception):
    """A request that gets no result.

    Args:
        code: one of :data:`MEANINGS`.
        message: what is wrong, in one sentence.
        where: the place in the request.
        fix: what the caller can do.
        retry_after: seconds.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        where: str | None = None,
        fix: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.status, meaning = MEANINGS[code]
        self.code, self.message, self.where, self.fix, self.retry_after = code, message or meaning, where, fix, retry_after
        super().__init__(self.message)

    @property
    def headers(self) -> dict[str, str]:
        """Beyond the content's."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self) -> bytes:
        """The answer's body."""
        return to_json({"error": {"code": self.code, "message": self.message, "where": self.where, "fix": self.fix}})


def to_json(value: Any) -> bytes:
    """Compact JSON; a lone surrogate is written as its escape."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def answer_of(error: ServeError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an error, for those who speak ASGI or HTTP themselves."""
    body = error.body()
    headers: Mapping[str, str] = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()], body
