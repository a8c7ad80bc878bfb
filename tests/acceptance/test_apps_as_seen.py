"""Apps that run in an unusual way are previewed, or the session says what a visitor sees and why."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.api import Api, SseEvent
from tests.acceptance.previews import page, preview

NODE = {"package.json": '{"name": "app", "private": true, "scripts": {"start": "node server.js"}}'}
VITE = '{"name": "app", "private": true, "scripts": {"dev": "vite"}, "devDependencies": {"vite": "5.4.11"%s}}'


def node_server(listen: str, answer: str = "") -> dict[str, str | bytes]:
    """The files of a server that answers every request with a page; `answer` is code that runs before."""
    code = f"""
require("http").createServer((request, response) => {{
  response.setHeader("content-type", "text/html");
  {answer}
  response.end("<h1>it works</h1>");
}}).listen({listen}, () => console.log("ready"));
"""
    return {**NODE, "server.js": code}


def lines_of(events: list[SseEvent]) -> list[str]:
    return [event.data["line"] for event in events if event.event == "log"]


def test_an_app_that_listens_on_the_containers_own_address_is_previewed(new_user: Callable[[], Api]) -> None:
    user = new_user()
    # The last address of the container is the one on its network.
    own = "Object.values(require('os').networkInterfaces()).flat().filter(each => !each.internal)[0].address"
    user.upload("own-address", node_server(f"3000, {own}"))
    session, events = user.launch(project_id="own-address")
    assert session["status"] == "running", events[-5:]
    with preview(user, session) as client:
        assert page(client) == "<h1>it works</h1>"
    user.end(session["session_id"])


def test_an_app_that_listens_on_ipv6_only_is_previewed(new_user: Callable[[], Api]) -> None:
    user = new_user()
    user.upload("ipv6", node_server("3000, '::1'"))
    session, events = user.launch(project_id="ipv6")
    assert session["status"] == "running", events[-5:]
    with preview(user, session) as client:
        assert page(client) == "<h1>it works</h1>"
    user.end(session["session_id"])


def test_an_app_that_speaks_tls_only_is_previewed(new_user: Callable[[], Api]) -> None:
    user = new_user()
    config = 'import ssl from "@vitejs/plugin-basic-ssl";\nexport default { plugins: [ssl()] };\n'
    package = VITE % ', "@vitejs/plugin-basic-ssl": "1.2.0"'
    user.upload("tls", {"package.json": package, "vite.config.mjs": config, "index.html": "<h1>camera</h1>"})
    session, events = user.launch(project_id="tls")
    assert (session["status"], session["warnings"]) == ("running", []), events[-5:]
    with preview(user, session) as client:
        assert "camera" in page(client)
    user.end(session["session_id"])


def test_an_app_below_a_path_is_opened_there(new_user: Callable[[], Api]) -> None:
    user = new_user()
    files = node_server("3000", "if (!request.url.startsWith('/handbook')) response.statusCode = 404;")
    user.upload("below", files | {"next.config.mjs": 'export default { basePath: "/handbook" };\n'})
    session, events = user.launch(project_id="below")
    assert (session["status"], session["warnings"]) == ("running", []), events[-5:]
    link = urlsplit(session["preview_url"])
    assert link.path == "/handbook"
    assert next(event.data["url"] for event in events if event.event == "preview").endswith("/handbook")
    with preview(user, session) as client:
        assert page(client, link.path) == "<h1>it works</h1>"
    user.end(session["session_id"])


def test_the_port_that_opens_is_the_port(new_user: Callable[[], Api]) -> None:
    user = new_user()
    files = node_server("Number(require('./settings.json').port)") | {"settings.json": '{"port": 7001}'}
    assert user.upload("other-port", files)["plan"]["backend"]["port"] == 3000
    session, events = user.launch(project_id="other-port")
    assert (session["status"], session["preview_port"], session["backend_port"]) == ("running", 7001, 7001), events[-5:]
    assert any("port 7001 instead of the detected 3000" in line for line in lines_of(events))
    with preview(user, session) as client:
        assert page(client) == "<h1>it works</h1>"
    user.end(session["session_id"])


def test_the_other_roles_reach_the_port_that_opens(new_user: Callable[[], Api]) -> None:
    """By the addresses that they were started with, and at localhost."""
    user = new_user()
    settings = {"settings.json": '{"port": 7001}'}
    backend = node_server("Number(require('./settings.json').port), '127.0.0.1'") | settings
    asks = "const said = await Promise.all([process.env.BACKEND_URL, 'http://localhost:3000', 'http://localhost:7001']"
    asks += ".map(url => fetch(url).then(answer => answer.text(), String))); response.end(said.join());"
    frontend = node_server("4000").items()
    files = {f"backend/{name}": text for name, text in backend.items()}
    files |= {f"frontend/{name}": str(text).replace("(request, r", "async (request, r") for name, text in frontend}
    files["frontend/server.js"] = str(files["frontend/server.js"]).replace('response.end("<h1>it works</h1>");', asks)
    user.upload("both", files)
    session, events = user.launch(project_id="both")
    assert (session["status"], session["backend_port"]) == ("running", 7001), events[-5:]
    with preview(user, session) as client:
        assert page(client) == ",".join(["<h1>it works</h1>"] * 3)
    user.end(session["session_id"])


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ("'x-frame-options', 'DENY'", "X-Frame-Options: DENY"),
        ("'content-security-policy', \"frame-ancestors 'self'\"", "Content-Security-Policy: frame-ancestors 'self'"),
    ],
)
def test_the_session_says_why_its_preview_cannot_be_framed(
    new_user: Callable[[], Api], header: str, refusal: str
) -> None:
    user = new_user()
    user.upload("framed", node_server("3000", f"response.setHeader({header});"))
    session, _ = user.launch(project_id="framed")
    assert (session["status"], session["preview_frame_refusal"]) == ("running", refusal)
    user.end(session["session_id"])


def test_an_error_of_the_app_is_a_warning_with_its_cause(new_user: Callable[[], Api]) -> None:
    user = new_user()
    answer = "try { null.items } catch (error) { console.error(error); response.statusCode = 500 }"
    user.upload("error", node_server("3000", answer))
    session, events = user.launch(project_id="error")
    assert session["status"] == "running", events[-5:]
    (warning,) = session["warnings"]
    assert warning["code"] == "server_error"
    assert "status 500" in warning["message"]
    assert "Cannot read properties of null" in warning["message"]
    (logged,) = [event.data["warning"] for event in events if event.event == "log" and "warning" in event.data]
    assert logged == warning
    # It is looked at in the preview, which shows what the app answers.
    link = urlsplit(session["preview_url"])
    with httpx.Client(
        base_url=user.url, headers={"Host": link.netloc}, follow_redirects=True, trust_env=False
    ) as client:
        assert client.get(f"{link.path}?{link.query}").text == "<h1>it works</h1>"
    user.end(session["session_id"])


def test_a_script_with_the_line_ends_of_windows_is_named(new_user: Callable[[], Api]) -> None:
    user = new_user()
    package = '{"name": "app", "private": true, "scripts": {"start": "sh -c \\"chmod +x start.sh; ./start.sh\\""}}'
    script = "#!/bin/bash\r\nnode server.js\r\n"
    user.upload("crlf", node_server("3000") | {"package.json": package, "start.sh": script})
    session, events = user.launch(project_id="crlf")
    assert session["status"] == "error", events[-5:]
    assert "start.sh has the line ends of Windows" in session["error"]["hint"]
    assert session["error"]["details"]["cause"] == "windows_line_ends"
    user.end(session["session_id"])


def test_a_package_for_windows_is_named_with_the_line_to_write(new_user: Callable[[], Api]) -> None:
    user = new_user()
    main = "from fastapi import FastAPI\n\napp = FastAPI()\n"
    user.upload("windows", {"main.py": main, "requirements.txt": "fastapi\npywin32==308\n"})
    session, events = user.launch(project_id="windows")
    assert session["status"] == "error", events[-5:]
    assert "pywin32==308" in session["error"]["message"]
    assert 'pywin32==308; sys_platform == "win32"' in session["error"]["hint"]
    user.end(session["session_id"])


def test_requirements_in_utf16_are_installed(new_user: Callable[[], Api]) -> None:
    user = new_user()
    code = "from flask import Flask\nimport humanize\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef home():\n"
    code += "    return humanize.intcomma(1234567)\n"
    requirements = "flask==3.0.3\r\nhumanize==4.11.0\r\n".encode("utf-16")
    user.upload("utf16", {"app.py": code, "requirements.txt": requirements})
    session, events = user.launch(project_id="utf16")
    assert session["status"] == "running", events[-5:]
    with preview(user, session) as client:
        assert page(client) == "1,234,567"
    user.end(session["session_id"])
