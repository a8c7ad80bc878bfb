"""`sandbox demo`: sets everything up and launches an example."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer
from rich.text import Text

import sandbox
from sandbox.cli import output, process
from sandbox.cli.environment import admin_token, load_settings
from sandbox.cli.output import Json
from sandbox.cli.service import print_next, start
from sandbox.cli.sessions import watch_launch
from sandbox.cli.setup import set_up, step
from sandbox.client import AsyncSandbox, ClientConfig, ConnectionFailed, SessionInfo
from sandbox.client import SandboxError as ClientError
from sandbox.client.config import authority_of
from sandbox.errors import NotFound


def demo(
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="Project to launch instead of the example.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set everything up, launch an example project and check that its preview answers.

    The example has a FastAPI backend and a React frontend. Afterwards the service and the example keep running; stop
    them with sandbox kill and sandbox down.

    Example: sandbox demo
    """
    settings, console = load_settings(), output.err()
    project = (path or _example()).resolve()
    output.run(set_up(settings, console))
    start(settings)
    config = ClientConfig(
        process.base_url(settings),
        admin_token(settings),
        settings.preview_domain,
        authority_of(settings.home, settings.port),
    )
    info, title = output.run(_launch(project, config, quiet=as_json))
    if as_json:
        output.print_json(info.raw)
        return
    print_next(settings)
    out = output.out()
    out.print(Text.assemble("session  ", (info.session_id, "bold")))
    if info.preview_url:
        out.print(Text.assemble("preview  ", (info.preview_url, "bold green"), f"  {title}"), soft_wrap=True)


async def _launch(project: Path, config: ClientConfig, *, quiet: bool) -> tuple[SessionInfo, str]:
    with step(output.err(), f"upload {project.name}") as work:
        sent = await AsyncSandbox.upload(project, project_id=project.name, config=config)
        work.result = f"{sent.files} files"
    launched = await AsyncSandbox.create(project_id=sent.project_id, wait=False, config=config)
    info = await watch_launch(launched, quiet=quiet)
    title = ""
    if info.preview_url:
        with step(output.err(), "preview answers") as work:
            page = await fetch_preview(info.preview_url, config)
            title = work.result = _title(page)
    return info, title


async def fetch_preview(url: str, config: ClientConfig) -> httpx.Response:
    """Request a preview as a browser does, with the signed link, its redirect and the cookie.

    Browsers resolve all names below `localhost` to this machine, but not every resolver does. The connection is
    therefore opened to the service's own host. Raises ConnectionFailed, or SandboxError for an HTTP error.
    """
    service = urlsplit(config.base_url)
    async with httpx.AsyncClient(
        transport=_AtService(service.hostname or "127.0.0.1", verify=config.tls()),
        follow_redirects=True,
        timeout=30.0,
    ) as browser:
        try:
            page = await browser.get(url, headers={"Accept": "text/html"})
        except httpx.TransportError as error:
            raise ConnectionFailed(url, str(error) or type(error).__name__) from error
    if page.status_code >= 400:
        raise ClientError(
            f"The preview answers HTTP {page.status_code}: {output.plain(page.text[:200])}",
            hint="See the app's output: sandbox logs SESSION",
            code="preview_failed",
        )
    return page


class _AtService(httpx.AsyncHTTPTransport):
    """Connects to the service's host for all names below `localhost`. The Host header stays the requested one."""

    def __init__(self, host: str, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify)
        self._host = host

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host.endswith(".localhost"):
            request = httpx.Request(
                request.method,
                request.url.copy_with(host=self._host),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        return await super().handle_async_request(request)


def _title(page: httpx.Response) -> str:
    found = re.search(r"<title[^>]*>([^<]{1,100})", page.text, re.IGNORECASE)
    return f"HTTP {page.status_code}, {output.plain(found.group(1)).strip() if found else f'{len(page.content)} bytes'}"


def _example() -> Path:
    folder = Path(sandbox.__file__).parent.parent / "examples" / "fullstack"
    if not folder.is_dir():
        raise NotFound(
            f"The example does not exist: {folder}",
            hint="It is part of the source tree. To use your own project: sandbox demo PATH",
            code="example_missing",
        )
    return folder
