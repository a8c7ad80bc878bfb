"""Asks an app for a page, as a browser would, and reads the beginning of its answer.

The answer is read without an HTTP library on purpose: what matters here is what a broken or half-started server sends,
such as nothing at all, another protocol, or a TLS alert, and a library reports all of these as one error.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin, urlsplit

from sandbox.engine.guest import Guest
from sandbox.errors import GuestError

#: Longest wait for the head of an answer, and then for the part of its body that is read.
HEAD_SECONDS = 5.0
BODY_SECONDS = 2.0
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_REDIRECTS = 5

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})(?: |\r?$)")
_LOOPBACK = ("localhost", "127.0.0.1", "0.0.0.0", "::1", "::")  # noqa: S104 - compared with, not listened on
_REDIRECTS = (301, 302, 303, 307, 308)
#: Both records with which a TLS server answers what is not TLS begin with these bytes: an alert of any version.
_TLS_ALERT = b"\x15\x03"
#: How Go, nginx, Apache, Java and Python servers answer plain HTTP on a TLS port, with status 400.
_WANTS_TLS = re.compile(
    rb"http request (?:was sent )?to (?:an )?https|speaking plain http|requires? tls", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` None: the port is open and gave no HTTP answer; `detail` says what happened instead."""

    detail: str
    status: int | None = None
    #: Names are in lower case; of a repeated header the last value.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: At most the first `MAX_BODY_BYTES`.
    body: bytes = b""
    #: The path that was asked for last, after redirects.
    path: str = "/"
    tls: bool = False
    #: Something other than HTTP was received.
    other_protocol: bool = False
    #: The connection was closed or broke before anything was received.
    hung_up: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether nothing came in the time that there was, on a connection that stayed open."""
        return self.status is None and not self.hung_up and not self.other_protocol

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def is_html(self) -> bool:
        return "html" in self.headers.get("content-type", "").lower()


@dataclass(frozen=True, slots=True)
class Entrance:
    """A way to an app: how to connect, and what the requests have to say."""

    connect: Callable[[], Awaitable[Streams]]
    #: The app's port. Redirects to it on a loopback address are redirects to the app.
    port: int
    #: The value of the `Host` header.
    host: str
    #: Cookies to send, by name. Those that the app sets on the way are added.
    cookies: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False


def direct(guest: Guest, port: int, *, tls: bool) -> Entrance:
    """The way through the guest agent's tunnel. Connecting raises GuestError, `port_not_open` among them."""

    async def connect() -> Streams:
        sock = await guest.tunnel(port)
        if not tls:
            return await asyncio.open_connection(sock=sock)
        return await asyncio.open_connection(sock=sock, ssl=any_certificate(), server_hostname="localhost")

    return Entrance(connect, port, f"localhost:{port}", tls=tls)


def any_certificate() -> ssl.SSLContext:
    """TLS without verification: development servers make their own certificates, and the connection stays within the
    container."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def ask(guest: Guest, port: int, path: str, seconds: float = HEAD_SECONDS) -> Answer | None:
    """The answer of the app to `GET path`, with TLS if the port accepts nothing else; None if nothing listens. Its head
    has to come within these seconds.

    Redirects within the app are followed. Raises GuestError if the guest agent does not answer.
    """
    try:
        answer = await visit(direct(guest, port, tls=False), path, seconds)
    except GuestError as error:
        if error.code == "port_not_open":
            return None
        raise
    if not _may_want_tls(answer):
        return answer
    secure = await visit(direct(guest, port, tls=True), path, seconds)
    return secure if secure.status is not None else answer


async def visit(entrance: Entrance, path: str, seconds: float = HEAD_SECONDS) -> Answer:
    """The answer to `GET path`, if its head comes within these seconds. Redirects within the app are followed, with the
    cookies that were set on the way; a redirect to another host is the answer."""
    cookies = dict(entrance.cookies)
    seen: set[str] = set()
    while True:
        answer = await _get(entrance, path, cookies, seconds)
        target = _redirect_target(entrance, answer)
        if target is None or target in seen or len(seen) == MAX_REDIRECTS:
            return answer
        seen.add(target)
        path = target


async def _get(entrance: Entrance, path: str, cookies: dict[str, str], seconds: float) -> Answer:
    shown = Answer("", path=path, tls=entrance.tls)
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await entrance.connect()
    except TimeoutError:
        return replace(shown, detail=f"no connection in {seconds:.0f} s")
    except OSError as error:
        return replace(shown, detail=f"the connection broke: {error}", hung_up=True)
    async with _closing(writer):
        try:
            writer.write(_request(entrance.host, path, cookies))
            async with asyncio.timeout(seconds):
                head = await _read_head(reader)
        except TimeoutError:
            return replace(shown, detail=f"no answer in {seconds:.0f} s")
        except OSError as error:
            return replace(shown, detail=f"the connection broke: {error}", hung_up=True)
        answer = _parse_head(shown, head)
        if answer.status is None:
            return answer
        _keep_cookies(head, cookies)
        return replace(answer, body=await _read_body(reader, answer))


def _request(host: str, path: str, cookies: Mapping[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", "Accept-Encoding: identity"]
    lines += ["Accept: text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent: Mozilla/5.0 (sandbox launch)"]
    if cookies:
        lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items()))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """The answer up to the blank line after its headers; less if the connection ends or it is not HTTP."""
    head = b""
    while len(head) < MAX_HEAD_BYTES:
        try:
            line = await reader.readline()
        except ValueError:  # a line that is longer than the reader's limit is no header
            return head + b"\n"
        head += line
        if not line.endswith(b"\n") or not line.strip() or not head.startswith(b"HTTP/"):
            break
    return head


async def _read_body(reader: asyncio.StreamReader, answer: Answer) -> bytes:
    length = answer.headers.get("content-length", "")
    limit = min(int(length), MAX_BODY_BYTES) if length.isascii() and length.isdigit() else MAX_BODY_BYTES
    body = b""
    # A page that never ends, such as a stream of events, is cut off.
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(BODY_SECONDS):
            while len(body) < limit and (piece := await reader.read(limit - len(body))):
                body += piece
    return body


def _parse_head(shown: Answer, head: bytes) -> Answer:
    if not head:
        return replace(shown, detail="the connection was closed without an answer", hung_up=True)
    first, *rest = head.split(b"\n")
    match = _STATUS_LINE.match(first.rstrip(b"\r") + b" ")
    if match is None:
        return replace(shown, detail="it does not speak HTTP", other_protocol=True, body=head)
    headers = {}
    for line in rest:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    return replace(shown, detail=f"status {int(match[1])}", status=int(match[1]), headers=headers)


def _keep_cookies(head: bytes, cookies: dict[str, str]) -> None:
    for line in head.split(b"\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"set-cookie":
            key, equals, content = value.split(b";", 1)[0].strip().decode("latin-1").partition("=")
            if equals and len(cookies) < 50:
                cookies[key] = content


def _redirect_target(entrance: Entrance, answer: Answer) -> str | None:
    location = answer.headers.get("location", "")
    if answer.status not in _REDIRECTS or not location or not location.isprintable() or " " in location:
        return None
    scheme = "https" if entrance.tls else "http"
    base = f"{scheme}://{entrance.host}{answer.path}"
    try:
        parts = urlsplit(urljoin(base, location))
        own = parts.netloc == entrance.host or (parts.hostname in _LOOPBACK and parts.port == entrance.port)
    except ValueError:
        return None
    if not own:
        return None
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _may_want_tls(answer: Answer) -> bool:
    if answer.status is None:
        return answer.hung_up or answer.body.startswith(_TLS_ALERT)
    return answer.status == 400 and _WANTS_TLS.search(answer.body) is not None


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
