"""HTTP requests and event streams, which are retried and resumed when the service restarts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from sandbox.client.config import ClientConfig
from sandbox.client.errors import ConnectionFailed, SandboxError, api_error

#: The service sends at least a heartbeat every 15 s. A stream without any data for this long is broken.
STREAM_TIMEOUT_SECONDS = 45.0
#: If a stream was open for this long, its end is a new failure, and the time limit for retries starts again.
_STABLE_SECONDS = 5.0
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
#: Statuses of a service that is starting or stopping, or of a proxy in front of it.
TEMPORARY_STATUSES = frozenset({502, 503, 504})


class Transport:
    """The HTTP connections of one caller to one service.

    While the service is unavailable, a request that can be repeated is retried for up to `retry_seconds`. If the
    service has never answered on this transport, there is no retry, so that a wrong address is reported at once.
    """

    def __init__(self, config: ClientConfig, *, retry_seconds: float = 60.0) -> None:
        self.config = config
        self.retry_seconds = retry_seconds
        self._answered = False
        self._http = httpx.AsyncClient(
            base_url=config.base_url,
            headers={**config.headers, "User-Agent": "purple8-sandbox-client"},
            timeout=_TIMEOUT,
            verify=config.tls(),
            limits=httpx.Limits(max_connections=None),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | Callable[[], AsyncIterable[bytes]] | None = None,
        files: dict[str, bytes] | None = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        repeatable: bool | None = None,
        timeout: float | None = 30.0,
    ) -> httpx.Response:
        """Send a request and return the whole response.

        `repeatable` states whether the request can be sent twice without harm; by default that is so for all methods
        but POST. Raises ApiError for statuses from 400 on, and ConnectionFailed if there is no response.
        """
        retry = method != "POST" if repeatable is None else repeatable
        backoff = Backoff(self.retry_seconds if retry and self._answered else 0)
        while True:
            request = self._http.build_request(
                method,
                path,
                json=body,
                content=content() if callable(content) else content,
                files=files,
                params=_without_none(params),
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=5.0),
            )
            try:
                response = await self._http.send(request)
            except httpx.TransportError as error:
                if not await backoff.wait():
                    raise ConnectionFailed(self.config.base_url, _cause(error)) from error
                continue
            self._answered = True
            if response.status_code in TEMPORARY_STATUSES and await backoff.wait():
                continue
            raise_for_problem(response)
            return response

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request and return the JSON object of the response. An empty response gives an empty object."""
        response = await self.request(method, path, **options)
        try:
            document = response.json() if response.content else {}
        except ValueError as error:
            raise SandboxError(
                f"The response of {self.config.base_url}{path} is not JSON",
                hint="Check that this is the sandbox service, and not another program on its port.",
                code="unexpected_answer",
            ) from error
        return document if isinstance(document, dict) else {"items": document}

    def stream(self, method: str, path: str, **options: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a request whose response is read while it arrives. The caller checks it with `raise_for_stream`."""
        options["params"] = _without_none(options.get("params"))
        return self._http.stream(method, path, timeout=httpx.Timeout(None, connect=5.0), **options)

    async def follow(
        self,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[ServerSentEvent]:
        """Yield the events of a stream until the service answers that there are no more (204).

        If the connection breaks or ends, it is opened again with Last-Event-ID, so that no event is missed or repeated,
        even if the service restarts. After `retry_seconds` without success, ConnectionFailed is raised. If an event of
        its own marks the end of a stream, the caller stops there.
        """
        last_id, requested_delay = after, 0.0
        backoff = Backoff(self.retry_seconds if self._answered else 0)
        while True:
            cause = "the stream ended"
            opened = time.monotonic()
            try:
                async with self._http.stream(
                    "GET",
                    path,
                    params=_without_none(params),
                    headers={"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})},
                    timeout=httpx.Timeout(STREAM_TIMEOUT_SECONDS, connect=5.0),
                ) as response:
                    self._answered = True
                    if response.status_code == 204:
                        return
                    if response.status_code not in TEMPORARY_STATUSES:
                        await raise_for_stream(response)
                        async for event in EventSource(response).aiter_sse():
                            last_id = event.id or last_id
                            requested_delay = (event.retry or 0) / 1000 or requested_delay
                            if event.data:
                                backoff = Backoff(self.retry_seconds)
                                yield event
                    else:
                        cause = f"HTTP {response.status_code}"
            except httpx.TransportError as error:
                cause = _cause(error)
            if self._answered and time.monotonic() - opened > _STABLE_SECONDS:
                backoff = Backoff(self.retry_seconds)
            if not await backoff.wait(at_least=requested_delay):
                raise ConnectionFailed(self.config.base_url, cause)


class Backoff:
    """Waits between retries: 50 ms at first, then longer each time, up to two seconds.

    The time limit counts from the first wait.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._deadline: float | None = None
        self._next = 0.05

    async def wait(self, at_least: float = 0.0) -> bool:
        """Wait before the next retry. Return False at once if the time limit has passed."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._limit_seconds
        if time.monotonic() >= self._deadline:
            return False
        await asyncio.sleep(max(self._next, at_least))
        self._next = min(self._next * 2, 2.0)
        return True


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the ApiError for a response whose status is 400 or above."""
    if response.status_code < 400:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"message": f"HTTP {response.status_code}: {response.text[:200]}"}
    raise api_error(response.status_code, problem, response.headers.get("X-Request-ID"))


async def raise_for_stream(response: httpx.Response) -> None:
    """Do the same as `raise_for_problem` for a response that has not been read yet."""
    if response.status_code >= 400:
        await response.aread()
        raise_for_problem(response)


def event_data(event: ServerSentEvent) -> dict[str, Any]:
    """Return the JSON object in an event."""
    data = json.loads(event.data)
    return data if isinstance(data, dict) else {"data": data}


def _without_none(params: dict[str, Any] | None) -> dict[str, Any] | None:
    return {name: value for name, value in params.items() if value is not None} if params else None


def _cause(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
