"""``mengzi-mt serve``: from a model to a server that answers until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from types import FrameType

import uvicorn

from mengzi_mt.errors import InputError, RunError, first_line
from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.sdk.serve_app import create_app
from mengzi_mt.sdk.serve_connections import protocol_of
from mengzi_mt.sdk.serve_service import Service
from mengzi_mt.sdk.serve_settings import ServeSettings

TICK = 0.1
"""Seconds between two looks at whether it is time to end."""

BACKLOG = 2_048


class Server(uvicorn.Server):
    """Ends in steps. The first signal refuses new work and lets that at hand be finished, a second one ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
        self.service.drain()

    async def watch(self) -> None:
        """End when the last request is answered, when the time for that is over, or when the thread of the model is gone."""
        while not (self.service.draining or self.service.worker.died):
            await asyncio.sleep(TICK)
        until = time.monotonic() + self.service.settings.grace
        await asyncio.sleep(TICK)
        while self.service.busy and time.monotonic() < until:
            await asyncio.sleep(TICK)
        self.should_exit = True


def serve(mengzi: Mengzi, settings: ServeSettings, listener: socket.socket, token: str | None, name: str) -> None:
    """Answer requests until a signal comes (SIGTERM, SIGINT).

    Args:
        mengzi: from now on the server's alone.
        settings: its limits.
        listener: from :func:`listen`.
        token: to be asked for; None for none.
        name: of the model, as clients see it.

    Raises:
        RunError: the thread that owns the model ended on its own.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    asyncio.run(_serve(mengzi, settings, listener, token, name))


async def _serve(mengzi: Mengzi, settings: ServeSettings, listener: socket.socket, token: str | None, name: str) -> None:
    service = Service(mengzi, settings, name)
    config = uvicorn.Config(
        create_app(service, token), http=protocol_of(settings), ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=settings.idle_timeout,  # type: ignore[arg-type]
        timeout_graceful_shutdown=max(1, round(settings.grace)),
    )  # fmt: skip
    server = Server(config, service)
    watching = asyncio.create_task(server.watch())
    await server.serve(sockets=[listener])
    watching.cancel()
    service.worker.end(settings.grace)
    if service.worker.died:
        raise RunError(
            "The thread that owns the model has ended", where=first_line(service.worker.died), fix="start the server again"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 is any free one.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"The address cannot be used: {first_line(error)}", where=f"{host}:{port}", fix="give another --host or --port"
        ) from error


def address(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
