"""What the health stage makes of an app that answers: which port, which path, which warnings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus
from sandbox.launch.http_probe import Entrance, Streams
from tests.fakes.processes import Connections, Handler, Script, app, http_server
from tests.fakes.world import World, one_role, two_roles

PAGE = (200, "text/html", b"<h1>Recipes</h1>")


def site(pages: Mapping[str, tuple[int, str, bytes]], headers: str = "") -> Handler:
    """An HTTP server with these pages: status, content type and body by path."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.split(b" ", 2)[1].decode()
        status, content_type, body = pages.get(path, (404, "text/html", b"<h1>Not found</h1>"))
        head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}{headers}\r\n".encode() + body)
        await writer.drain()

    return handle


async def launched(world: World, script: Script, **plan: object) -> Session:
    """A session whose app this is, and that runs."""
    session = await world.create_project(one_role(**plan))
    world.guest(session).script("app", script)
    assert await world.launch(session) is SessionStatus.RUNNING
    return await world.read(session)


async def warning_of(world: World, session: Session) -> str:
    """The code of the session's only warning, which is in its log as well."""
    (warning,) = session.observations.warnings
    (event,) = [each for each in await world.events(session, EventType.LOG) if "warning" in each.data]
    assert event.data["warning"] == warning.to_json()
    assert warning.message.splitlines()[0].rstrip(":") in event.data["line"]
    assert warning.hint
    return warning.code.value


@pytest.mark.parametrize("status", [200, 401, 403])
async def test_a_page_and_a_sign_in_are_healthy(world: World, status: int) -> None:
    session = await launched(world, app(8000, site({"/": (status, "text/html", b"<form>")})))
    assert session.observations.warnings == ()
    assert session.observations.preview_path == "/"


async def test_redirects_within_the_app_are_followed(world: World) -> None:
    hits: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        hits.append(request)
        if request.startswith(b"GET / "):
            writer.write(b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:8000/home\r\nSet-Cookie: a=b; Path=/\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    session = await launched(world, app(8000, handle))
    assert await warning_of(world, session) == "server_error"
    assert "GET /home with status 500" in session.observations.warnings[0].message
    assert any(b"GET /home " in hit and b"Cookie: a=b" in hit for hit in hits)


async def test_a_redirect_to_another_host_is_the_answer(world: World) -> None:
    headers = "Location: https://sign-in.example/\r\n"
    session = await launched(world, app(8000, site({"/": (302, "text/plain", b"")}, headers)))
    assert session.observations.warnings == ()


@pytest.mark.parametrize(
    ("path", "output", "files"),
    [
        ("/handbook/", b"ready at http://localhost:8000/handbook/\n", {}),
        ("/handbook", b"", {"next.config.mjs": b'export default { basePath: "/handbook" };'}),
        ("/docs", b"", {}),
    ],
)
async def test_an_app_without_a_page_at_the_root_is_shown_where_it_has_one(
    world: World, path: str, output: bytes, files: dict[str, bytes]
) -> None:
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("app", app(8000, site({path: PAGE}), output=output))

    def write_files(call: str) -> None:
        if call == "main.start":
            for name, content in files.items():
                guest.files().write(name, content)

    world.engine.on_call = write_files
    assert await world.launch(session) is SessionStatus.RUNNING
    session = await world.read(session)
    assert session.observations.preview_path == path
    assert session.observations.warnings == ()
    (preview,) = await world.events(session, EventType.PREVIEW)
    assert preview.data["url"].endswith(f"preview.test{path}")
    assert any(path in line and "the preview opens there" in line for line in await world.lines(session))


async def test_an_error_page_that_links_to_the_app_is_followed(world: World) -> None:
    pages = {"/": (404, "text/html", b'did you mean to visit <a href="/shop/">/shop/</a>?'), "/shop/": PAGE}
    session = await launched(world, app(8000, site(pages)))
    assert session.observations.preview_path == "/shop/"


async def test_an_app_without_any_page_runs_with_a_warning(world: World) -> None:
    session = await launched(world, app(8000, site({})))
    assert await warning_of(world, session) == "no_page"


async def test_an_error_of_the_server_is_a_warning_with_its_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.launch.visitor.ERROR_SECONDS", 0.1)
    frame = b'Traceback (most recent call last):\n  File "/workspace/app.py", line 9, in home\n    1 / 0\n'
    output = frame + b"ZeroDivisionError: division by zero\n"
    session = await launched(world, app(8000, http_server(500), output=output))
    assert await warning_of(world, session) == "server_error"
    message = session.observations.warnings[0].message
    assert "status 500" in message
    assert 'File "/workspace/app.py", line 9' in message


async def test_an_app_that_needs_a_moment_gets_no_warning(world: World) -> None:
    answers = iter([503, 500])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http_server(next(answers, 200))(reader, writer)

    assert (await launched(world, app(8000, handle))).observations.warnings == ()


async def test_a_stated_health_path_is_waited_for(world: World) -> None:
    answers = iter([503, 503, 503])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http_server(next(answers, 200))(reader, writer)

    session = await launched(world, app(8000, handle), health="/ready", stated=("health",))
    assert session.observations.warnings == ()
    assert next(answers, None) is None


async def test_an_app_that_refuses_the_host_name(world: World) -> None:
    body = b'Blocked request. This host ("x.preview") is not allowed.'
    session = await launched(world, app(8000, site({"/": (403, "text/plain", body)})))
    assert await warning_of(world, session) == "host_refused"


async def test_a_port_that_does_not_speak_http_is_a_warning(world: World) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await writer.drain()

    assert await warning_of(world, await launched(world, app(8000, greet))) == "not_http"


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ("X-Frame-Options: DENY", "X-Frame-Options: DENY"),
        (
            "Content-Security-Policy: default-src *; frame-ancestors 'self'",
            "Content-Security-Policy: frame-ancestors 'self'",
        ),
        ("Content-Security-Policy: frame-ancestors *\r\nX-Frame-Options: DENY", None),
        ("X-Other: DENY", None),
    ],
)
async def test_the_header_that_forbids_frames_is_noted(world: World, header: str, refusal: str | None) -> None:
    session = await launched(world, app(8000, site({"/": PAGE}, f"{header}\r\n")))
    assert session.observations.frame_refusal == refusal


async def test_a_detected_port_is_replaced_by_the_one_that_answers(world: World) -> None:
    script = app(5173, site({"/": PAGE}), output=b"  Local:   http://localhost:\x1b[1m5173\x1b[22m/\n")
    session = await launched(world, script)
    assert session.preview_port == 5173
    assert session.plan is not None
    assert session.plan.roles["main"].port == 5173
    assert any("port 5173 instead of the detected 8000" in line for line in await world.lines(session))


async def test_a_stated_port_is_kept_to(world: World) -> None:
    world.health_timeout_seconds = 2.0
    session = await world.create_project(one_role(stated=("port",)))
    world.guest(session).script("app", app(5173, site({"/": PAGE}), output=b"http://localhost:5173/\n"))
    assert await world.launch(session) is SessionStatus.ERROR
    error = (await world.read(session)).error
    assert error is not None
    assert error.code == "other_port_opened"
    assert error.details is not None
    assert (error.details["port_planned"], error.details["port_opened"]) == (8000, 5173)


async def test_a_first_page_that_takes_longer_than_one_probe_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.launch.port_search.HEAD_SECONDS", 0.05)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await site({"/": PAGE})(reader, writer)

    assert (await launched(world, app(8000, slow))).preview_port == 8000


async def test_of_several_ports_the_one_with_a_page_is_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.launch.port_search.PAGE_SECONDS", 0.2)
    ports = {8000: http_server(404), 24678: http_server(426), 9229: http_server(400), 4000: site({"/": PAGE})}
    session = await launched(world, Script(b"up\n", exit_code=None, listens=ports))
    assert session.preview_port == 4000
    assert any(line.startswith("also open: 9229 (preview: 9229-") for line in await world.lines(session))


async def test_an_api_that_answers_first_is_not_taken_for_the_page(world: World) -> None:
    api_answered = asyncio.Event()

    async def api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http_server(200)(reader, writer)
        api_answered.set()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if api_answered.is_set():
            await site({"/": PAGE})(reader, writer)

    script = Script(b"api: http://localhost:3001/\n", exit_code=None, listens={3001: api, 8000: late})
    assert (await launched(world, script)).preview_port == 8000


async def test_a_planned_port_with_a_page_is_taken_whatever_else_is_open(world: World) -> None:
    ports = {8000: site({"/": PAGE}), 4000: site({"/": PAGE})}
    session = await launched(world, Script(b"http://localhost:4000/\n", exit_code=None, listens=ports))
    assert session.preview_port == 8000


async def test_the_localhost_of_other_roles_follows_the_port(world: World) -> None:
    session = await world.create_project(two_roles())
    world.guest(session, "backend").script("app", app(5005, output=b"listening on http://127.0.0.1:5005\n"))
    assert await world.launch(session) is SessionStatus.RUNNING
    # The front end was started with the detected port, in BACKEND_URL, so both lead to the app.
    assert world.guest(session, "frontend").forwarded == ({5005: "backend", 8000: "backend"}, 3000)
    assert world.guest(session, "frontend").planned_port is None
    assert (world.guest(session, "backend").forwarded[1], world.guest(session, "backend").planned_port) == (5005, 8000)
    session = await world.read(session)
    assert session.backend_port == 5005
    assert any("at backend:8000 and localhost:8000" in line for line in await world.lines(session))


async def test_a_detected_port_that_another_role_opens_leads_to_that_role(world: World) -> None:
    session = await world.create_project(two_roles())
    world.guest(session, "frontend").script("app", app(8000, site({"/": PAGE}), output=b"http://localhost:8000\n"))
    world.guest(session, "backend").script("app", app(5005, output=b"listening on http://127.0.0.1:5005\n"))
    assert await world.launch(session) is SessionStatus.RUNNING
    assert world.guest(session, "frontend").forwarded == ({5005: "backend"}, 8000)
    assert world.guest(session, "backend").forwarded == ({3000: "frontend", 8000: "frontend"}, 5005)


async def test_an_app_without_a_planned_port_gets_the_one_that_it_opens(world: World) -> None:
    script = app(4000, site({"/": PAGE}), output=b"http://localhost:4000\n")
    session = await launched(world, script, port=None)
    assert session.preview_port == 4000


class Door:
    """A preview's door behind which another server answers than in the container; None: it cannot be reached."""

    def __init__(self, handler: Handler | None) -> None:
        self._handler = handler
        self._connections = Connections()
        self.asked: list[tuple[int, str, bool]] = []

    async def entrance(self, session: Session, port: int, role: str, *, tls: bool) -> Entrance:
        self.asked.append((port, role, tls))
        return Entrance(self._connect, port, "session.preview.test", {"grant": "key"})

    async def _connect(self) -> Streams:
        if self._handler is None:
            raise ConnectionRefusedError("there is no proxy")
        return await asyncio.open_connection(sock=self._connections.open(self._handler))


async def test_the_page_is_asked_for_at_the_previews_own_door(world: World) -> None:
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 F\r\nContent-Length: 42\r\n\r\nBlocked request. This host is not allowed.")
        await writer.drain()

    world.door = door = Door(handle)
    session = await world.create_project(two_roles())
    assert await world.launch(session) is SessionStatus.RUNNING
    session = await world.read(session)
    assert door.asked == [(3000, "frontend", False)]
    assert b"Host: session.preview.test\r\n" in requests[0]
    assert b"Cookie: grant=key\r\n" in requests[0]
    assert await warning_of(world, session) == "host_refused"


async def test_an_app_that_the_preview_does_not_show_is_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.launch.visitor.ERROR_SECONDS", 0.1)
    world.door = Door(site({"/": (404, "text/html", b"Nothing to see here")}, "X-Sandbox-Answer: not_found\r\n"))
    session = await launched(world, app(8000, site({"/": PAGE})))
    assert await warning_of(world, session) == "preview_differs"
    assert "not_found" in session.observations.warnings[0].message


async def test_without_a_proxy_the_app_is_looked_at_in_its_container(world: World) -> None:
    world.door = Door(None)
    session = await launched(world, app(8000, site({"/docs": PAGE})))
    assert session.observations.preview_path == "/docs"


async def test_a_relaunch_forgets_what_the_run_before_has_noticed(world: World) -> None:
    session = await launched(world, app(8000, site({})))
    assert session.observations.warnings
    world.guest(session).script("app", app(8000, site({"/": PAGE})))
    await world.launch(await world.relaunch(session))
    assert (await world.read(session)).observations.warnings == ()


async def test_a_script_with_the_line_ends_of_windows_is_recognised(world: World) -> None:
    session = await world.create_project(one_role())
    guest = world.guest(session)
    guest.script("app", Script(errors=b"sh: 1: ./start.sh: not found\n", exit_code=127))

    def write_script(call: str) -> None:
        if call == "main.start":
            guest.files().write("start.sh", b"#!/bin/bash\r\nnode server.js\r\n")

    world.engine.on_call = write_script
    assert await world.launch(session) is SessionStatus.ERROR
    error = (await world.read(session)).error
    assert error is not None
    assert "start.sh has the line ends of Windows" in error.hint
    assert error.details is not None
    assert error.details["cause"] == "windows_line_ends"
