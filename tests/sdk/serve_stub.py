"""A model for the server's tests that answers at once, and the server on a port of its own."""

import asyncio
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import uvicorn

from mengzi_mt.sdk.catalogue import find_task
from mengzi_mt.sdk.results import Candidate, Classification, Entities, Entity, Keywords, Relation, Span, Text
from mengzi_mt.sdk.serve import Server, listen
from mengzi_mt.sdk.serve_app import create_app
from mengzi_mt.sdk.serve_connections import protocol_of
from mengzi_mt.sdk.serve_service import Service
from mengzi_mt.sdk.serve_settings import ServeSettings

JSON = {"Content-Type": "application/json"}


class StubModel:
    """Answers from the text alone. ``pause`` is the time of a call; ``calls`` are the rows of each."""

    def __init__(self, pause=0.0):
        self.pause, self.calls, self.name = pause, [], "stub"
        self.scorers = SimpleNamespace(scorer=SimpleNamespace(max_input=512))
        self.before = lambda rows: None

    def predict(self, task, rows, *, labels=None, templates, **_):
        self._work(task, rows)
        return [self._one(find_task(task), row, labels, tuple(templates)) for row in rows]

    def generate(self, prompts, **_):
        self._work("generate", prompts)
        return [self._text("generate", (), prompt) for prompt in prompts]

    def stream(self, prompt, max_new_tokens=None, stop=(), no_repeat_ngram_size=0):
        ends = [place for text in stop if (place := prompt.find(text)) >= 0]
        for character in prompt[: min(ends, default=None)][:max_new_tokens]:
            time.sleep(self.pause)
            yield character

    def stream_task(self, task, *, template=None, max_new_tokens=None, no_repeat_ngram_size=None, **row):
        return self.stream(row["text"], max_new_tokens)

    def _work(self, task, rows):
        self.calls.append((task, len(rows)))
        self.before(rows)
        time.sleep(self.pause)

    def _text(self, task, templates, text):
        return Text(
            task=task, templates=templates, text=text[::-1], log_probability=-1.0, finished=True,
            candidates=(Candidate(text[::-1], -1.0),),
        )  # fmt: skip

    def _one(self, task, row, labels, templates):
        text, base = next(iter(row.values())), {"task": task.name, "templates": templates}
        if task.kind in ("label", "relation"):
            labels = labels or task.labels
            best = labels[sum(map(ord, text)) % len(labels)]
            shares = {label: 0.7 if label == best else 0.3 / (len(labels) - 1) for label in labels}
            more = {"label": best, "probability": 0.7, "probabilities": shares}
            return (
                Relation(**base, **more, head=row["head"], tail=row["tail"])
                if task.kind == "relation"
                else Classification(**base, **more)
            )
        if task.kind in ("entities", "mentions"):
            start = text.find("周明远")
            kind = task.labels[0] if task.labels else "人名"
            found = (Entity(kind, "周明远", start, start + 3),) if start >= 0 else ()
            return Entities(**base, entities=found, unplaced=(("书名", "《古典》"),), answer=("人名：周明远",))
        if task.kind == "span":
            return Span(**base, text=text[:2], start=0, end=2, places=((0, 2),), log_probability=-0.5)
        if task.kind == "keywords":
            return Keywords(**base, keywords=("橡胶", "沥青"), answer="橡胶、沥青")
        return self._text(task.name, templates, text)


@contextmanager
def running(model, token=None, **settings):
    """A server on a free port, in a thread: its address without a slash, and its service."""
    limits, listener, ready = ServeSettings(**settings), listen("127.0.0.1", 0), threading.Event()
    held = {}

    async def main():
        service = Service(model, limits, "stub")
        config = uvicorn.Config(
            create_app(service, token), http=protocol_of(limits), ws="none", lifespan="off", log_config=None,
            access_log=False, timeout_keep_alive=limits.idle_timeout, timeout_graceful_shutdown=2,
        )  # fmt: skip
        server = Server(config, service)
        held.update(service=service, server=server, loop=asyncio.get_running_loop())
        watching = asyncio.create_task(server.watch())
        ready.set()
        await server.serve(sockets=[listener])
        watching.cancel()
        service.worker.end(2)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    port = listener.getsockname()[1]
    thread.start()
    ready.wait(10)
    while not held["server"].started:
        time.sleep(0.01)
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, **held, thread=thread)
    finally:
        held["server"].should_exit = held["server"].force_exit = True
        thread.join(10)
