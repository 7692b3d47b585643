"""Connections: how many, and how long one may take to say what it wants or to hear what was said.

uvicorn takes any number of connections, lets one that never finishes a request's head, never ends a body after its answer or never
reads the answer stay for ever, and answers what is no HTTP in plain text. This protocol, made from its own, does not.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mengzi_mt.sdk.serve_errors import ServeError, answer_of
from mengzi_mt.sdk.serve_settings import ServeSettings


def protocol_of(settings: ServeSettings) -> type[H11Protocol]:
    """The protocol of a server with these settings."""

    class LimitedProtocol(H11Protocol):
        """One connection."""

        _reading: asyncio.TimerHandle | None = None
        _writing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """A client is there."""
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                self._write_off(ServeError("too_many_connections", retry_after=1))
            else:
                self._read_until(settings.head_timeout)

        def data_received(self, data: bytes) -> None:
            """Bytes came. The clock runs from a head's first byte to its last, and while a body comes that nobody reads."""
            if self.transport.is_closing():
                return
            super().data_received(data)
            theirs = self.conn.their_state
            if theirs is h11.IDLE and self.conn.trailing_data[0]:
                self._read_until(settings.head_timeout)
            elif theirs is h11.SEND_BODY and self.conn.our_state is h11.DONE:
                self._read_until(settings.body_timeout)
            elif self._reading is not None:
                self._reading.cancel()
                self._reading = None

        def connection_lost(self, exc: Exception | None) -> None:
            """The client is gone."""
            for timer in (self._reading, self._writing):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            """The client does not read as fast as the server writes."""
            super().pause_writing()
            self._writing = self.loop.call_later(settings.send_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            """The client has read."""
            if self._writing is not None:
                self._writing.cancel()
                self._writing = None
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            """Nothing came for a while: close, and do not wait for a client that has not read its last answer."""
            if self.transport.get_write_buffer_size():
                self.transport.abort()
            else:
                super().timeout_keep_alive_handler()

        def send_400_response(self, msg: str) -> None:
            """What came is no HTTP, or its head is too large."""
            self._write_off(ServeError("bad_request", msg))

        def _read_until(self, seconds: float) -> None:
            if self._reading is None:
                self._reading = self.loop.call_later(seconds, self._read_late)

        def _read_late(self) -> None:
            self._reading = None
            if self.conn.trailing_data[0] and self.conn.their_state is h11.IDLE:
                self._write_off(ServeError("request_timeout"))
            else:  # nothing was asked, or it was answered long ago
                self.transport.abort()

        def _write_off(self, error: ServeError) -> None:
            """Answer without the application, where no other answer is under way, and close."""
            if self.cycle is None or self.cycle.response_complete:
                headers, body = answer_of(error)
                lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(), b"connection: close"]
                head = b"\r\n".join([*lines, *(name + b": " + value for name, value in headers)])
                self.transport.write(head + b"\r\n\r\n" + body)
            self.transport.close()

    return LimitedProtocol
