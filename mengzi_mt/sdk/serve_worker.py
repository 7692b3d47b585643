"""The one thread that owns the model: it answers batches, and in between writes the answers that are streamed.

What a batch holds changes no result, and one bad job does not spoil its neighbours: where a batch is refused, its jobs are asked
one by one. A thread that ends on its own takes nothing more, gives an error to all who wait, and says so; the server then ends,
for whoever watches over it to start a fresh one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.sdk.serve_errors import ServeError
from mengzi_mt.sdk.serve_metrics import Metrics
from mengzi_mt.sdk.serve_queue import Batch, Job, JobQueue, Part, Question, Row
from mengzi_mt.sdk.serve_settings import ServeSettings

SLICE = 0.05
"""Seconds of a stream's turn."""

log = logging.getLogger("mengzi_mt.serve")


def ask(mengzi: Mengzi, question: Question, rows: Sequence[Row]) -> list[Any]:
    """The results of rows."""
    if question.task is None:
        prompts = [row["prompt"] for row in rows]
        return mengzi.generate(
            prompts, max_new_tokens=question.max_new_tokens, beams=question.beams, stop=question.stop,
            no_repeat_ngram_size=question.no_repeat_ngram_size or 0, progress=False,
        )  # fmt: skip
    return mengzi.predict(
        question.task, rows, labels=question.labels, templates=list(question.templates), vote=question.vote,  # type: ignore[arg-type]
        max_new_tokens=question.max_new_tokens, beams=question.beams,
        no_repeat_ngram_size=question.no_repeat_ngram_size, progress=False,
    )  # fmt: skip


def pieces_of(mengzi: Mengzi, question: Question, row: Row) -> Iterator[str]:
    """The answer to one row in pieces, as they are written."""
    if question.task is None:
        return mengzi.stream(
            row["prompt"], max_new_tokens=question.max_new_tokens, stop=question.stop,
            no_repeat_ngram_size=question.no_repeat_ngram_size or 0,
        )  # fmt: skip
    return mengzi.stream_task(
        question.task, template=question.templates[0], max_new_tokens=question.max_new_tokens,
        no_repeat_ngram_size=question.no_repeat_ngram_size, **row,
    )  # fmt: skip


class Stream:
    """An answer that is written piece by piece.

    Attributes:
        pieces: of the answer; computed where they are asked for, on the worker's thread.
        tell: called on the worker's thread with each piece, with None at the end or with an error instead.
        dropped: nobody reads it any more.
    """

    def __init__(self, pieces: Iterator[str], tell: Callable[[str | BaseException | None], None]) -> None:
        self.pieces, self.tell, self.dropped = pieces, tell, False

    def advance(self) -> bool:
        """Write for a turn; whether there is more."""
        until = time.monotonic() + SLICE
        try:
            for piece in self.pieces:
                if self.dropped:
                    return False
                self.tell(piece)
                if time.monotonic() > until:
                    return True
        except Exception as error:
            self.tell(error)
            return False
        self.tell(None)
        return False


class Worker:
    """The thread, and the queue in front of it.

    Attributes:
        queue: of those who wait for a batch.
        died: what ended the thread; None while it runs or after it was told to end.
    """

    def __init__(self, mengzi: Mengzi, settings: ServeSettings, metrics: Metrics) -> None:
        """Start the thread.

        Args:
            mengzi: from now on used by the thread alone.
            settings: of the batches and the queue.
            metrics: told of every batch.
        """
        self.mengzi, self.settings, self.metrics = mengzi, settings, metrics
        self.queue = JobQueue(settings, mengzi.scorers.scorer.max_input)
        self.died: BaseException | None = None
        self._streams: deque[Stream] = deque()
        self._open: set[Stream] = set()
        self._batch: Batch | None = None
        self._since: float | None = None
        self._rate = 0.0
        self._ending = False
        self._thread = threading.Thread(target=self._live, name="mengzi-mt model", daemon=True)
        self._thread.start()

    @property
    def stuck(self) -> bool:
        """Whether one batch has taken so long that the model counts as stuck."""
        since = self._since
        return since is not None and time.monotonic() - since > self.settings.stalled

    @property
    def streams(self) -> int:
        """Answers that are being streamed."""
        return len(self._open)

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            ServeError: there is no room, or nothing new is taken.
        """
        self.queue.put(job, self.retry_after())

    def stream(self, stream: Stream) -> None:
        """Begin a stream.

        Raises:
            ServeError: there are too many, or nothing new is taken.
        """
        self.queue.check_open()
        if self.streams >= self.settings.streams:
            raise ServeError("queue_full", f"{self.streams} answers are being streamed already", retry_after=self.retry_after())
        self._open.add(stream)
        self._streams.append(stream)
        self.queue.wake()

    def retry_after(self) -> int:
        """Seconds after which there may be room: what the waiting rows need at the pace of late, from 1 to 60."""
        return max(1, min(60, round(self.queue.rows / self._rate))) if self._rate else 1

    def end(self, timeout: float) -> None:
        """Take nothing new, answer those who wait with an error, and end; waits for the batch at hand."""
        self._ending = True
        self._refuse(ServeError("shutting_down"))
        self.queue.wake()
        self._thread.join(timeout)

    def _live(self) -> None:
        try:
            while not self._ending:
                batch = self.queue.take(wait=not self._streams)
                if batch and batch.parts:
                    self._batch, self._since = batch, time.monotonic()
                    self._answer(batch)
                    self._batch = self._since = None
                for _ in range(len(self._streams)):
                    stream = self._streams.popleft()
                    if stream.advance():
                        self._streams.append(stream)
                    else:
                        self._open.discard(stream)
        except BaseException as error:
            self._died(error)

    def _answer(self, batch: Batch) -> None:
        began = time.monotonic()
        try:
            self._deliver(batch.parts, ask(self.mengzi, batch.question, batch.rows))
        except Exception as error:
            if _is_fatal(error):
                raise
            self._answer_apart(batch, error)
        seconds = time.monotonic() - began
        rows = len(batch.rows)
        self._rate = rows / max(seconds, 1e-6)
        self.metrics.batch(batch.question.lane, rows, seconds, [began - part.job.since for part in batch.parts])

    def _answer_apart(self, batch: Batch, error: Exception) -> None:
        for part in batch.parts:
            try:
                if len(batch.parts) == 1:
                    raise error
                self._deliver([part], ask(self.mengzi, batch.question, part.rows))
            except Exception as own:
                if _is_fatal(own):
                    raise
                self._finish(part.job, own)

    def _deliver(self, parts: Sequence[Part], results: list[Any]) -> None:
        """Results to the jobs that they belong to; a job whose last rows came is finished."""
        start = 0
        for part in parts:
            part.job.results += results[start : start + len(part.rows)]
            start += len(part.rows)
            if len(part.job.results) == len(part.job.rows):
                self._finish(part.job, part.job.results)

    def _finish(self, job: Job, answer: list[Any] | BaseException) -> None:
        if not job.dropped:
            if isinstance(answer, BaseException):
                self.queue.drop(job)
            job.finish(answer)

    def _refuse(self, reason: ServeError) -> None:
        for job in self.queue.close(reason):
            self._finish(job, reason)

    def _died(self, error: BaseException) -> None:
        log.critical("The thread that owns the model has ended", exc_info=error)
        self.died = error
        reason = ServeError("worker_died")
        for part in self._batch.parts if self._batch else ():
            self._finish(part.job, reason)
        self._refuse(reason)
        for stream in self._open:
            stream.tell(reason)


def _is_fatal(error: Exception) -> bool:
    """Whether the device is lost: after such an error every later call fails, too."""
    return isinstance(error, getattr(torch, "AcceleratorError", ()))
