"""Between the addresses and the thread that owns the model: waiting for answers, giving up on them, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.sdk.serve_errors import ServeError
from mengzi_mt.sdk.serve_metrics import Metrics
from mengzi_mt.sdk.serve_queue import Job, Question, Row
from mengzi_mt.sdk.serve_settings import ServeSettings
from mengzi_mt.sdk.serve_worker import Stream, Worker, pieces_of

Gone = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the client has left."""


class Service:
    """One model for many requests. Lives in an event loop.

    Attributes:
        name: of the model.
        draining: whether it was told to end: it goes on with what it has and takes nothing new.
        busy: requests that wait for the model.
    """

    def __init__(self, mengzi: Mengzi, settings: ServeSettings, name: str) -> None:
        self.settings, self.name, self.metrics = settings, name, Metrics()
        self.draining, self.busy = False, 0
        self.worker = Worker(mengzi, settings, self.metrics)
        self.metrics.watch("waiting_rows", "Rows that wait for the model.", lambda: self.worker.queue.rows)
        self.metrics.watch("waiting_requests", "Requests that wait for an answer.", lambda: self.busy)
        self.metrics.watch("streams", "Answers that are being streamed.", lambda: self.worker.streams)
        self.metrics.watch("healthy", "1 while the model answers.", lambda: float(self.state() == "ok"))

    def state(self) -> str:
        """``ok``, ``worker_died`` or ``stuck``."""
        return "worker_died" if self.worker.died else "stuck" if self.worker.stuck else "ok"

    async def ask(self, question: Question, rows: Sequence[Row], gone: Gone) -> list[Any]:
        """The results of rows.

        Raises:
            ServeError: none in time, or no room.
            InputError: a row that the model cannot take.
        """
        self.check_open()
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = Job(question, rows, _teller(lambda answer: _settle(answered, answer)))
        self.worker.submit(job)
        left = asyncio.ensure_future(gone())
        with self._counted():
            try:
                waited: set[asyncio.Future[Any]] = {answered, left}
                await asyncio.wait(waited, timeout=self.settings.request_timeout, return_when=asyncio.FIRST_COMPLETED)
                if not answered.done():
                    raise self._late() if not left.done() else ServeError("deadline", "The client has left")
                return answered.result()
            finally:
                left.cancel()
                self.worker.queue.drop(job)

    async def pieces(self, question: Question, row: Row, gone: Gone) -> AsyncGenerator[str]:
        """The answer to one row in pieces.

        Raises:
            ServeError: as :meth:`ask`.
        """
        if question.width > 1:
            for result in await self.ask(question, [row], gone):
                yield result.text
            return
        self.check_open()
        heard: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        stream = Stream(pieces_of(self.worker.mengzi, question, row), _teller(heard.put_nowait))
        self.worker.stream(stream)
        with self._counted():
            try:
                async with asyncio.timeout(self.settings.request_timeout):
                    while (piece := await heard.get()) is not None:
                        if isinstance(piece, BaseException):
                            raise piece
                        yield piece
            except TimeoutError:
                raise self._late() from None
            finally:
                stream.dropped = True

    def drain(self) -> None:
        """Take nothing new from now on."""
        self.draining = True

    def check_open(self) -> None:
        """Whether requests are taken.

        Raises:
            ServeError: they are not.
        """
        if self.worker.died:
            raise ServeError("worker_died", retry_after=5)
        if self.draining:
            raise ServeError("shutting_down", retry_after=5)

    def _late(self) -> ServeError:
        return ServeError("deadline", f"No answer within {self.settings.request_timeout:g} seconds", fix="send fewer rows")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


def _teller(tell: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same call, from another thread to this loop."""
    loop = asyncio.get_running_loop()

    def telling(value: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, value)

    return telling


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
