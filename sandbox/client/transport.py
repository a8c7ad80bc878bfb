"""The wire: requests that outlive a restart of the service, and event streams that resume by themselves."""

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

#: The service says something every 15 s at least; silent for longer, a stream is taken as broken and resumed.
STREAM_SILENCE_SECONDS = 45.0
#: A stream that lived this long was a working one: its end is a new failure, not a further try at the last one.
_LIVED_SECONDS = 5.0
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
#: Answers of a service, or of a proxy before it, that is on its way down or up.
_PASSING = frozenset({502, 503, 504})


class Transport:
    """HTTP to one service as one caller.

    A request that may be repeated is repeated while the service is away, for up to `patience_seconds`, provided that it
    answered before: a service that never answered is reported at once.
    """

    def __init__(self, config: ClientConfig, *, patience_seconds: float = 60.0) -> None:
        self.config = config
        self.patience_seconds = patience_seconds
        self._answered = False
        self._http = httpx.AsyncClient(
            base_url=config.base_url,
            headers={**config.headers, "User-Agent": "purple8-sandbox-client"},
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=None),
        )

    async def aclose(self) -> None:
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
        """The answer, read to its end. Raises ApiError for 400 and above, ConnectionFailed when there is none.

        `repeatable` says whether sending it twice does no harm; by default true for all but POST.
        """
        again = method != "POST" if repeatable is None else repeatable
        backoff = _Backoff(self.patience_seconds if again and self._answered else 0)
        while True:
            request = self._http.build_request(
                method,
                path,
                json=body,
                content=content() if callable(content) else content,
                files=files,
                params=_given(params),
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
            if response.status_code in _PASSING and await backoff.wait():
                continue
            raise_for_problem(response)
            return response

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The answer's JSON object; an empty answer is an empty object."""
        response = await self.request(method, path, **options)
        try:
            found = response.json() if response.content else {}
        except ValueError as error:
            raise SandboxError(
                f"{self.config.base_url}{path} answered something that is not JSON",
                hint="Is that the sandbox service, or something else on its port?",
                code="unexpected_answer",
            ) from error
        return found if isinstance(found, dict) else {"items": found}

    def stream(self, method: str, path: str, **options: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """An answer to be read as it comes. The caller checks it with `raise_for_stream`."""
        options["params"] = _given(options.get("params"))
        return self._http.stream(method, path, timeout=httpx.Timeout(None, connect=5.0), **options)

    async def follow(
        self,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[ServerSentEvent]:
        """The events of a stream, until the service says that there are no more (204).

        When the connection breaks or ends, it is made again with Last-Event-ID, for `patience_seconds` at most; across
        a restart of the service no event is missed and none comes twice. A stream whose end is an event of its own is
        left by the caller there.
        """
        last_id, asked_wait = after, 0.0
        backoff = _Backoff(self.patience_seconds if self._answered else 0)
        while True:
            cause = "the stream ended"
            opened = time.monotonic()
            try:
                async with self._http.stream(
                    "GET",
                    path,
                    params=_given(params),
                    headers={"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})},
                    timeout=httpx.Timeout(STREAM_SILENCE_SECONDS, connect=5.0),
                ) as response:
                    self._answered = True
                    if response.status_code == 204:
                        return
                    if response.status_code not in _PASSING:
                        await raise_for_stream(response)
                        async for event in EventSource(response).aiter_sse():
                            last_id = event.id or last_id
                            asked_wait = (event.retry or 0) / 1000 or asked_wait
                            if event.data:
                                backoff = _Backoff(self.patience_seconds)
                                yield event
                    else:
                        cause = f"HTTP {response.status_code}"
            except httpx.TransportError as error:
                cause = _cause(error)
            if self._answered and time.monotonic() - opened > _LIVED_SECONDS:
                backoff = _Backoff(self.patience_seconds)
            if not await backoff.wait(at_least=asked_wait):
                raise ConnectionFailed(self.config.base_url, cause)


class _Backoff:
    """Waits between tries: short at first, never more than two seconds, until the patience is used up.

    Patience counts from the first wait: however long things went well before, a failure gets all of it.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._until: float | None = None
        self._next = 0.05

    async def wait(self, at_least: float = 0.0) -> bool:
        """Wait for the next try; False at once when there is to be none."""
        if self._until is None:
            self._until = time.monotonic() + self._patience_seconds
        if time.monotonic() >= self._until:
            return False
        await asyncio.sleep(max(self._next, at_least))
        self._next = min(self._next * 2, 2.0)
        return True


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the ApiError that an answer of 400 or above stands for."""
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
    """As `raise_for_problem`, for an answer that has not been read."""
    if response.status_code >= 400:
        await response.aread()
        raise_for_problem(response)


def event_data(event: ServerSentEvent) -> dict[str, Any]:
    """The JSON object that an event carries."""
    data = json.loads(event.data)
    return data if isinstance(data, dict) else {"data": data}


def _given(params: dict[str, Any] | None) -> dict[str, Any] | None:
    return {name: value for name, value in params.items() if value is not None} if params else None


def _cause(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
