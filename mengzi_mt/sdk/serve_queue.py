"""Who waits for the model: jobs by task, taken in batches of equal questions, the tasks in turn."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mengzi_mt.sdk.serve_errors import ServeError
from mengzi_mt.sdk.serve_settings import ServeSettings

Row = Mapping[str, str]


@dataclass(frozen=True)
class Question:
    """What is asked of a row. Rows of equal questions are answered in one call of the model.

    Attributes:
        task: a downstream task, or None where rows are free prompts under ``prompt``.
        templates: names; none where rows are free prompts.
        labels: the caller's own.
        vote: how several templates decide.
        max_new_tokens: of a generated answer.
        beams: of generation.
        stop: texts that end an answer to a free prompt.
        no_repeat_ngram_size: tokens in a row that come only once in an answer; None for the task's default.
    """

    task: str | None
    templates: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    vote: str = "mean"
    max_new_tokens: int = 128
    beams: int = 1
    stop: tuple[str, ...] = ()
    no_repeat_ngram_size: int | None = None

    @property
    def lane(self) -> str:
        """Where it waits: tasks take turns."""
        return self.task or "generate"

    @property
    def width(self) -> int:
        """Sequences that one row becomes."""
        return max(1, len(self.templates)) * self.beams


@dataclass(eq=False)
class Job:
    """The rows of one request.

    Attributes:
        question: asked of all of them.
        rows: the texts by name.
        finish: called once, on the worker's thread, with the results or with an error.
        since: when it came, on the monotonic clock.
        results: of the rows so far.
        taken: rows given to the model so far.
        dropped: nobody waits for it any more.
        characters: of all its texts.
    """

    question: Question
    rows: Sequence[Row]
    finish: Callable[[list[Any] | BaseException], None]
    since: float = field(default_factory=time.monotonic)
    results: list[Any] = field(default_factory=list)
    taken: int = 0
    dropped: bool = False
    characters: int = field(init=False)

    def __post_init__(self) -> None:
        self.characters = sum(len(text) for row in self.rows for text in row.values())


@dataclass(frozen=True)
class Part:
    """Neighbouring rows of a job, part of a batch."""

    job: Job
    rows: Sequence[Row]


@dataclass(frozen=True)
class Batch:
    """Rows of one question."""

    question: Question
    parts: Sequence[Part]

    @property
    def rows(self) -> list[Row]:
        """Of all parts."""
        return [row for part in self.parts for row in part.rows]


class JobQueue:
    """Jobs that wait. Any thread may put and drop; one thread takes.

    Tasks take turns, a batch each; inside of a task its different questions do. So a task with many rows in the queue delays each
    of the others by one batch at most.
    """

    def __init__(self, settings: ServeSettings, max_input: int) -> None:
        self.settings, self.max_input = settings, max_input
        self.rows = self.characters = 0
        self._lanes: OrderedDict[str, OrderedDict[Question, deque[Job]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed: ServeError | None = None
        self._woken = False

    def put(self, job: Job, retry_after: int) -> None:
        """Let a job wait.

        Raises:
            ServeError: there is no room, or nothing new is taken.
        """
        size = len(job.rows)
        with self._changed:
            self.check_open()
            full = self.rows + size > self.settings.queue_rows or self.characters + job.characters > self.settings.queue_characters
            if full and self.rows:  # a job larger than the queue is taken by an empty one
                raise ServeError("queue_full", f"{self.rows} rows wait already", retry_after=retry_after)
            self.rows += size
            self.characters += job.characters
            lane = self._lanes.setdefault(job.question.lane, OrderedDict())
            lane.setdefault(job.question, deque()).append(job)
            self._changed.notify()

    def check_open(self) -> None:
        """Whether anything new is taken.

        Raises:
            ServeError: nothing is.
        """
        if self._closed:
            raise self._closed

    def drop(self, job: Job) -> None:
        """Nobody waits for the job any more: its rows that wait are forgotten."""
        with self._changed:
            if job.dropped:
                return
            job.dropped = True
            lane = self._lanes.get(job.question.lane, OrderedDict())
            if job in lane.get(job.question, ()):
                lane[job.question].remove(job)
                self._forget(job, len(job.rows) - job.taken)
                self._tidy(job.question)

    def close(self, reason: ServeError) -> list[Job]:
        """Take nothing new from now on; returns the jobs that still wait."""
        with self._changed:
            self._closed = reason
            self._changed.notify()
            return [job for lane in self._lanes.values() for jobs in lane.values() for job in jobs]

    def wake(self) -> None:
        """Make a :meth:`take` that waits return."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def take(self, wait: bool) -> Batch | None:
        """The next batch; None where nothing waits and ``wait`` is false, or where :meth:`wake` was called.

        A batch that is not full is held back until its first job has waited for ``batch_wait``.
        """
        with self._changed:
            while not self._woken:
                oldest = self._head()
                if oldest is None:
                    if not wait:
                        return None
                    self._changed.wait()
                    continue
                held = oldest.since + self.settings.batch_wait - time.monotonic()
                if held <= 0 or not wait or self.rows >= self.settings.batch_rows:
                    return self._batch(oldest.question)
                self._changed.wait(held)
            self._woken = False
            return None

    def _head(self) -> Job | None:
        for lane in self._lanes.values():
            for jobs in lane.values():
                return jobs[0]
        return None

    def _batch(self, question: Question) -> Batch:
        jobs, parts = self._lanes[question.lane][question], list[Part]()
        rows, tokens = self.settings.batch_rows, self.settings.batch_tokens
        while jobs and rows > 0 and tokens > 0:
            job, count = jobs[0], 0
            for row in job.rows[job.taken :]:
                cost = question.width * min(self.max_input, sum(map(len, row.values())))
                if (parts or count) and (rows < question.width or tokens < cost):
                    rows = 0
                    break
                rows, tokens, count = rows - question.width, tokens - cost, count + 1
            if count:
                parts.append(Part(job, job.rows[job.taken : job.taken + count]))
                job.taken += count
                self._forget(job, count)
            if job.taken < len(job.rows):
                break
            jobs.popleft()
        self._turn(question)
        return Batch(question, parts)

    def _turn(self, question: Question) -> None:
        """The lane and the question go to the end of their rows."""
        lane = self._lanes[question.lane]
        lane.move_to_end(question)
        self._lanes.move_to_end(question.lane)
        self._tidy(question)

    def _tidy(self, question: Question) -> None:
        lane = self._lanes[question.lane]
        if not lane[question]:
            del lane[question]
        if not lane:
            del self._lanes[question.lane]

    def _forget(self, job: Job, rows: int) -> None:
        """Rows that wait no more; a job's characters are counted until its last row has left."""
        self.rows -= rows
        if job.taken == len(job.rows) or job.dropped:
            self.characters -= job.characters
