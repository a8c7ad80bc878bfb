"""The request middleware: a span, log lines with the request id, and an X-Request-ID on every response."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import httpx
import pytest
import uvicorn
import websockets
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from sse_starlette import EventSourceResponse

from sandbox.api.http import problems
from sandbox.api.http.middleware import RequestMiddleware
from sandbox.errors import NotFound
from sandbox.settings import Settings
from sandbox.telemetry import context
from sandbox.telemetry.logging import configure_logging
from sandbox.telemetry.tracing import Tracing, current_ids

logger = logging.getLogger("tests.requests")


@pytest.fixture
def _logging(recorder):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(Settings(log_level="DEBUG"), recorder)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


async def name_user() -> str:
    context.set_user("ada")
    return "ada"


def make_app(recorder) -> RequestMiddleware:
    tracing = Tracing(recorder)
    router = APIRouter()

    @router.get("/things/{thing_id}")
    async def thing(thing_id: int, user: Annotated[str, Depends(name_user)]) -> dict[str, object]:
        with tracing.span("look", attributes={"thing": thing_id}), context.bind(session_id="s-1"):
            logger.info("looking", extra={"thing": thing_id})
            await asyncio.to_thread(logger.warning, "from a thread")
        return {"user": user, "ids": current_ids()}

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret that nobody may see")

    @router.get("/untraced")
    async def untraced() -> dict[str, object]:
        return {"ids": current_ids()}

    @router.get("/stream")
    async def stream() -> EventSourceResponse:
        async def events():
            yield {"data": "one"}
            yield {"data": "two"}

        return EventSourceResponse(events())

    @router.get("/half")
    async def half() -> EventSourceResponse:
        async def events():
            yield {"data": "one"}
            raise RuntimeError("half way")

        return EventSourceResponse(events())

    @router.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    @router.websocket("/refused")
    async def refused(websocket: WebSocket) -> None:
        raise NotFound("There is no such session.", code="session_not_found", hint="List them.")

    @router.websocket("/broken-socket")
    async def broken_socket(websocket: WebSocket) -> None:
        raise RuntimeError("a secret that nobody may see")

    app = FastAPI()
    problems.install(app)
    app.include_router(router, prefix="/api")
    return RequestMiddleware(app, tracing, untraced={"/api/untraced"})


@pytest.fixture
async def server(recorder, _logging):
    """The address of a real server."""
    config = uvicorn.Config(make_app(recorder), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=f"http://{server}") as client:
        yield client


async def test_a_request_has_a_span_and_log_lines_with_its_id(http, recorder, records):
    response = await http.get("/api/things/7?token=secret", headers={"X-Request-ID": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    assert await recorder.flush()
    lines = {line.message.split(" 200 ")[0]: line for line in await records.logs() if line.request_id == "mine-1"}
    assert set(lines) == {"looking", "from a thread", "GET /api/things/7"}
    assert {line.user_id for line in lines.values()} == {"ada"}
    looking = lines["looking"]
    assert (looking.level, looking.service) == ("INFO", "sandbox")
    assert looking.metadata["thing"] == 7
    assert looking.metadata["session_id"] == "s-1"
    assert looking.metadata["logger"] == "tests.requests"
    assert lines["from a thread"].metadata["session_id"] == "s-1"
    assert lines["GET /api/things/7"].metadata["status"] == 200
    inner, outer = sorted(await records.spans(), key=lambda span: span.parent_span_id is None)
    assert (inner.operation_name, outer.operation_name) == ("look", "GET /api/things/{thing_id}")
    assert (inner.parent_span_id, inner.trace_id) == (outer.span_id, outer.trace_id)
    assert looking.metadata["span_id"] == inner.span_id
    assert response.json()["ids"] == [outer.trace_id, outer.span_id]
    assert outer.status == "success"
    assert outer.tags["http.response.status_code"] == 200
    assert outer.tags["user_id"] == "ada"
    assert outer.tags["request_id"] == "mine-1"
    assert not any("secret" in str(row) for row in [*await records.logs(), *await records.spans()])


@pytest.mark.parametrize("sent", ["", "with space", "x" * 101, "semi;colon", "a\tb"])
async def test_an_invalid_request_id_is_replaced(http, sent):
    answered = (await http.get("/api/things/1", headers={"X-Request-ID": sent})).headers.get_list("x-request-id")
    assert len(answered) == 1
    assert answered[0] != sent
    assert len(answered[0]) == 32


async def test_an_unexpected_error_is_a_problem_and_is_logged_with_its_stack(http, recorder, records):
    response = await http.get("/api/broken")
    (stream,) = http._transport._pool.connections
    assert not stream.is_closed()  # the response was complete, so the connection can be used again
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == "internal_error"
    assert body["request_id"] == response.headers["x-request-id"]
    assert "secret" not in response.text
    assert await recorder.flush()
    (error,) = [line for line in await records.logs() if line.level == "ERROR"]
    assert error.request_id == body["request_id"]
    assert "RuntimeError: a secret that nobody may see" in error.stack_trace
    (span,) = await records.spans()
    assert span.status == "error"
    assert span.logs[0]["attributes"]["exception.type"] == "RuntimeError"


async def test_a_valid_traceparent_is_continued(http, recorder, records):
    trace_id, span_id = "ab" * 16, "cd" * 8
    await http.get("/api/things/1", headers={"traceparent": f"00-{trace_id}-{span_id}-00"})
    for bad in (f"00-{'0' * 32}-{span_id}-01", "nonsense", f"00-{trace_id}-{span_id}", "00-" + "z" * 5000):
        await http.get("/nowhere", headers={"traceparent": bad})
    assert await recorder.flush()
    spans = await records.spans()
    (continued,) = [span for span in spans if span.parent_span_id == span_id]
    assert continued.trace_id == trace_id
    unmatched = [span for span in spans if span.operation_name == "GET"]
    assert len(unmatched) == 4
    assert all(span.parent_span_id is None and span.trace_id != trace_id for span in unmatched)


async def test_a_request_to_an_untraced_path_leaves_a_line_and_no_span(http, recorder, records):
    response = await http.get("/api/untraced", headers={"X-Request-ID": "quiet"})
    assert (response.json(), response.headers["x-request-id"]) == ({"ids": None}, "quiet")
    await http.get("/api/things/1")
    await wait_for_span(recorder, records, "GET /api/things/{thing_id}")
    assert not any("untraced" in span.operation_name for span in await records.spans())
    assert any(line.request_id == "quiet" for line in await records.logs())


async def test_a_stream_is_recorded_when_it_ends(http, recorder, records):
    async with http.stream("GET", "/api/stream") as response:
        assert response.headers["x-request-id"]
        text = "".join([part async for part in response.aiter_text()])
    assert "one" in text
    assert "two" in text
    await wait_for_span(recorder, records, "GET /api/stream")


async def test_a_stream_that_fails_is_aborted(http, recorder, records):
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/api/half")
    span = await wait_for_span(recorder, records, "GET /api/half")
    assert span.status == "error"


async def test_a_websocket_is_recorded(server, recorder, records):
    async with websockets.connect(f"ws://{server}/api/echo", additional_headers={"X-Request-ID": "ws-1"}) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-request-id"] == "ws-1"
        await socket.send("hello")
        assert await socket.recv() == "hello"
    span = await wait_for_span(recorder, records, "WEBSOCKET /api/echo")
    assert (span.status, span.tags["http.response.status_code"]) == ("success", 101)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/api/refused", 404, "session_not_found"), ("/api/broken-socket", 500, "internal_error")],
)
async def test_a_websocket_is_refused_with_a_problem(server, recorder, records, path, status, code):
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(f"ws://{server}{path}")
    response = refusal.value.response
    assert response.status_code == status
    assert f'"code":"{code}"'.encode() in response.body
    assert b"secret" not in response.body
    assert response.headers["x-request-id"]
    span = await wait_for_span(recorder, records, f"WEBSOCKET {path}")
    assert span.status == ("error" if status == 500 else "success")


async def wait_for_span(recorder, records, name):
    while True:  # the span is recorded after the client has read the last byte
        await recorder.flush()
        found = [span for span in await records.spans() if span.operation_name == name]
        if found:
            return found[0]
        await asyncio.sleep(0.02)
