"""The addresses: what each takes and gives, and the document of the API."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Route

from mengzi_mt import __version__
from mengzi_mt.errors import InputError, nearest
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.page import HEADERS, page
from mengzi_mt.sdk.serve_errors import MEANINGS, ServeError, to_json
from mengzi_mt.sdk.serve_limits import App, Bodies, Front, Token, fault
from mengzi_mt.sdk.serve_metrics import CONTENT_TYPE
from mengzi_mt.sdk.serve_queue import Question, Row
from mengzi_mt.sdk.serve_schemas import (
    INFOS,
    TEMPLATES,
    WRITING,
    ErrorBody,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    State,
    TaskList,
)
from mengzi_mt.sdk.serve_service import Service

PROTECTED = ("/v1/", "/metrics")
SSE = "text/event-stream"
SHOWN_FAULTS = 5
MEMBERS = ("constrained-", "literal[", "list[", "function-")
"""How pydantic calls the members of a union."""

DESCRIPTION = """Chinese downstream tasks on one model. Rows of many requests are computed together; that changes no result.

`/v1/tasks` says what each task takes. Whatever is no result has the form of `ErrorBody`."""

PREDICTED = {
    "model": "mengzi-mt-mini",
    "task": "sentiment",
    "results": [
        {
            "task": "sentiment", "templates": ["polarity_question"], "cut": 0, "label": "正面", "probability": 0.97,
            "probabilities": {"正面": 0.97, "负面": 0.03},
        }
    ],
}  # fmt: skip
EVENT = {
    "type": "object",
    "description": "One event. `data` is JSON: `row` and `text`; of an error, an `ErrorBody`.",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["piece", "done", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
STREAMED = 'event: piece\ndata: {"row":0,"text":"书里"}\n\nevent: done\ndata: {"row":0,"text":"书里有光"}\n\n'


def create_app(service: Service, token: str | None = None) -> App:
    """The application, with all that stands in front of it.

    Args:
        service: what answers.
        token: to be sent as bearer; None where none is asked for.
    """
    api = _api(service, token)
    routes = [route for route in api.routes if isinstance(route, Route)]
    paths = [route.path for route in routes]
    app: App = Bodies(api, service.settings, {route.path for route in routes if "POST" in (route.methods or ())})
    if token:
        app = Token(app, token, PROTECTED)
    return Front(app, service.metrics, paths)


def _api(service: Service, token: str | None) -> FastAPI:
    api = FastAPI(
        title="mengzi-mt", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    api.exception_handlers[RequestValidationError] = _invalid
    api.exception_handlers[HTTPException] = _unrouted
    api.exception_handlers[ServeError] = _refused
    api.exception_handlers[InputError] = _refused
    api.exception_handlers[Exception] = _refused
    locked = [Depends(HTTPBearer(auto_error=False))] if token else []
    refusals = ("unauthorized",) if token else ()
    work = (
        "malformed_json", "request_timeout", "body_too_large", "unsupported_media_type", "invalid_input", "queue_full", "internal",
        "shutting_down", "deadline", *refusals,
    )  # fmt: skip

    home_page = page(service.name, locked=token is not None)

    @api.get("/", include_in_schema=False)
    async def home() -> Response:
        return HTMLResponse(home_page, headers=HEADERS)

    @api.get("/health", response_model=State, responses=_errors("worker_died"), summary="Whether the model lives")
    async def health() -> Response:
        state = service.state()
        if state != "ok":
            raise ServeError("worker_died", None if state == "worker_died" else "The model has not come back from a batch")
        return _json({"status": "ok", "model": service.name})

    @api.get("/ready", response_model=State, responses=_errors("shutting_down"), summary="Whether requests are taken")
    async def ready() -> Response:
        service.check_open()
        return _json({"status": "ready", "model": service.name})

    @api.get(
        "/metrics", summary="Counters for Prometheus", dependencies=locked, response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_errors(*refusals)},
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @api.get("/v1/tasks", response_model=TaskList, dependencies=locked, responses=_errors(*refusals), summary="All tasks")
    async def tasks() -> TaskList:
        return TaskList(model=service.name, tasks=list(INFOS.values()))

    @api.post(
        "/v1/predict", dependencies=locked, response_model=None, summary="Results of a task",
        responses={200: _streamable(PredictResponse, PREDICTED), **_errors(*work)},
    )  # fmt: skip
    async def predict(
        request: Request,
        asked: Annotated[PredictRequest, Body(openapi_examples=_examples())],  # type: ignore[valid-type]
    ) -> Response:
        question, rows = question_of(asked)
        if getattr(asked, "stream", False):
            return await _stream(service, request, question, rows)
        results = await service.ask(question, rows, lambda: _gone(request))
        return _json({"model": service.name, "task": question.task, "results": [result.to_dict() for result in results]})

    @api.post(
        "/v1/generate", dependencies=locked, response_model=None, summary="Answers to free prompts",
        responses={200: _streamable(GenerateResponse, None), **_errors(*work)},
    )  # fmt: skip
    async def generate(request: Request, asked: GenerateRequest) -> Response:
        question = Question(
            None, max_new_tokens=asked.max_new_tokens, beams=asked.beams, stop=tuple(asked.stop),
            no_repeat_ngram_size=asked.no_repeat_ngram_size,
        )  # fmt: skip
        rows = [{"prompt": prompt} for prompt in asked.prompts]
        if asked.stream:
            return await _stream(service, request, question, rows)
        results = await service.ask(question, rows, lambda: _gone(request))
        return _json({"model": service.name, "results": [result.to_dict() for result in results]})

    return api


def question_of(asked: Any) -> tuple[Question, list[Row]]:
    """What a checked request asks, and of which rows."""
    labels = getattr(asked, "labels", None)
    writing = {name: getattr(asked, name) for name in WRITING if hasattr(asked, name)}
    known, wanted = TEMPLATES[asked.task], asked.templates
    templates = known[:wanted] if isinstance(wanted, int) else (wanted,) if isinstance(wanted, str) else tuple(wanted)
    question = Question(asked.task, templates, tuple(labels) if labels else None, asked.vote, **writing)
    return question, [row.model_dump(exclude_none=True) for row in asked.rows]


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(service: Service, request: Request, question: Question, rows: Sequence[Row]) -> Response:
    """Server-sent events. Begun before the answer's head is sent, so that a refusal has its own status."""
    events = _events(service, request, question, rows)
    first = await anext(events)

    async def all_events() -> AsyncIterator[bytes]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return StreamingResponse(all_events(), media_type=SSE)


async def _events(service: Service, request: Request, question: Question, rows: Sequence[Row]) -> AsyncGenerator[bytes]:
    begun = False
    try:
        for place, row in enumerate(rows):
            whole = ""
            async with aclosing(service.pieces(question, row, lambda: _gone(request))) as pieces:
                async for piece in pieces:
                    whole += piece
                    yield _event("piece", {"row": place, "text": piece})
                    begun = True
            yield _event("done", {"row": place, "text": whole})
            begun = True
    except Exception as error:
        if not begun:
            raise
        yield b"event: error\ndata: " + as_refusal(error).body() + b"\n\n"


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + to_json(data) + b"\n\n"


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def _examples() -> dict[str, Any]:
    return {name: {"summary": info.title, "value": info.examples[0]} for name, info in INFOS.items()}


def _errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The document's part on errors."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, meaning = MEANINGS[code]
        example = {"error": {"code": code, "message": meaning, "where": None, "fix": None}}
        found[status] = {"model": ErrorBody, "description": meaning, "content": {"application/json": {"example": example}}}
    return found


def _streamable(model: Any, example: Any) -> dict[str, Any]:
    content: dict[str, Any] = {SSE: {"schema": EVENT, "example": STREAMED}}
    if example:
        content["application/json"] = {"example": example}
    return {"model": model, "description": "The results; with `stream`, server-sent events.", "content": content}


def as_refusal(error: Exception) -> ServeError:
    """The error that a client sees. Where the server keeps its files is nobody's business."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, InputError):
        where = None if "/" in (error.where or "") or os.sep in (error.where or "") else error.where
        return ServeError("invalid_input", error.what, where=where, fix=error.fix)
    return fault(error)


async def _refused(request: Request, error: Exception) -> Response:
    refused = as_refusal(error)
    return Response(refused.body(), refused.status, refused.headers, "application/json")


async def _invalid(request: Request, error: Exception) -> Response:
    """Names the first places that are wrong; never repeats what was sent, which may be anything."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    first = faults[0]
    if first["type"] == "json_invalid":
        return await _refused(request, ServeError("malformed_json", f"The body is no JSON: {first['ctx']['error']}"))
    if first["type"] == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])[:60]
        return await _refused(
            request, ServeError("invalid_input", f"There is no task {tag!r}", where="task", fix=nearest(tag, TASKS))
        )
    shown = [f"{_place(one['loc'])}: {one['msg']}" for one in faults[:SHOWN_FAULTS]]
    more = len(faults) - len(shown)
    message = "; ".join(shown) + (f"; and {more} more" if more else "")
    return await _refused(request, ServeError("invalid_input", message, where=_place(first["loc"])))


def _place(location: Sequence[Any]) -> str:
    """Where in the body, without the models' names that pydantic puts in between."""
    parts = [str(part) for part in location[1:] if part not in TASKS]
    return ".".join(part for part in parts if not part.startswith(MEMBERS))[:200] or "body"


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "not_found", 405: "method_not_allowed", 400: "malformed_json"}
    refused = ServeError(known.get(error.status_code, "bad_request"))
    return Response(refused.body(), refused.status, {**(error.headers or {}), **refused.headers}, "application/json")
