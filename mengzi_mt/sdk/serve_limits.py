"""What stands in front of the application, in plain ASGI: the token, the body's size and pace, faults, counts.

uvicorn limits none of these. What an application does not even see, such as connections that never finish a head, is in
:mod:`mengzi_mt.sdk.serve_connections`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from mengzi_mt.sdk.serve_errors import ServeError, answer_of
from mengzi_mt.sdk.serve_metrics import Metrics
from mengzi_mt.sdk.serve_settings import ServeSettings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECURE_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store")]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")

log = logging.getLogger("mengzi_mt.serve")


class Front:
    """Counts every answer, adds the headers that all answers have, and gives faults the form of the other errors."""

    def __init__(self, app: App, metrics: Metrics, paths: Collection[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, whole = time.monotonic(), 0, False

        async def sending(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *SECURE_HEADERS]}
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            if whole:
                return  # Starlette raises again what its handler has answered
            refused = error if isinstance(error, ServeError) else fault(error)
            if status:
                raise refused from None  # the head is sent: all that is left is to close the connection
            await respond(sending, refused)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.request(method, path, status, time.monotonic() - began)


def fault(error: BaseException) -> ServeError:
    """The answer to a request that met a fault of the server; the log gets the traceback, the client only its id."""
    name = secrets.token_hex(4)
    log.error("Fault %s", name, exc_info=error)
    return ServeError("internal", f"A fault of the server; its log has it as {name}.")


async def respond(send: Send, error: ServeError) -> None:
    """Send an error."""
    headers, body = answer_of(error)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Token:
    """Asks for the bearer token at some addresses, before a byte of the body is read."""

    def __init__(self, app: App, token: str, prefixes: tuple[str, ...]) -> None:
        self.app, self.expected, self.prefixes = app, f"bearer {token}".encode(), prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].startswith(self.prefixes):
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            kind, _, token = given.partition(b" ")
            if not hmac.compare_digest(kind.lower() + b" " + token.strip(), self.expected):
                raise ServeError("unauthorized", fix="send the header: Authorization: Bearer TOKEN")
        await self.app(scope, receive, send)


class Bodies:
    """Reads a body whole before the application sees the request: checks its kind, counts its bytes as they come, minds the clock.

    A refusal is answered at once; what the client still sends is read and forgotten by the connection.

    Args:
        app: what is behind it.
        settings: sizes and times.
        reads: paths whose POST takes JSON. Elsewhere the router says what is wrong, with 404 or 405.
    """

    def __init__(self, app: App, settings: ServeSettings, reads: Collection[str]) -> None:
        self.app, self.settings, self.reads = app, settings, reads
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._check_head(scope)
        body = bytearray()
        try:
            if await self._in_time(receive, body):
                await self.app(scope, _replayed(bytes(body), receive), send)
        finally:
            self.held -= len(body)

    def _check_head(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.settings.body_bytes:
            raise self._too_large()
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] == "POST" and scope["path"] in self.reads and kind != b"application/json":
            raise ServeError("unsupported_media_type", fix="send the header: Content-Type: application/json")

    async def _in_time(self, receive: Receive, body: bytearray) -> bool:
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                return await self._read(receive, body)
        except TimeoutError:
            raise ServeError("request_timeout") from None

    async def _read(self, receive: Receive, body: bytearray) -> bool:
        """Fill the body; whether the client is still there."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > self.settings.body_bytes:
                raise self._too_large()
            if chunk and self.held + len(chunk) > self.settings.bodies_bytes:
                raise ServeError("too_many_connections", "There is no room for more bodies", retry_after=1)
            body += chunk
            self.held += len(chunk)
            if not message.get("more_body", False):
                return True

    def _too_large(self) -> ServeError:
        return ServeError("body_too_large", f"A body may have {self.settings.body_bytes:,} bytes", fix="send fewer rows a request")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body once and then whatever comes: the client's leaving."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
