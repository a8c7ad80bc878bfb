"""Bodies to rows, off the event loop: large ones in a process of their own.

Reading hundreds of records is some ten milliseconds of pure Python. In a thread it would hold the interpreter's lock,
and so everybody's requests; in another process it holds up nobody, and runs on another core.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Final, Literal

import anyio.to_process
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.telemetry.otlp import messages
from sandbox.telemetry.otlp.mapping import Mapped, map_logs, map_spans
from sandbox.telemetry.otlp.owner import Owner

RecordKind = Literal["logs", "spans"]

#: Bytes of a body that is read at once, where it is: a millisecond's worth.
SMALL: Final = 8_192


class Decoder:
    """Reads bodies. Of an event loop; the processes end with it, and with the service however that ends."""

    def __init__(self, most_bytes: int, processes: int | None = None) -> None:
        self._most = most_bytes
        self._limiter = anyio.CapacityLimiter(processes or max(2, (os.cpu_count() or 1) // 2))

    async def decode(self, what: RecordKind, body: bytes, kind: str, encoding: str, owner: Owner | None) -> Mapped:
        """The rows of a body; see `messages` for what is refused, `mapping` for what becomes of the rest."""
        if len(body) <= SMALL and not encoding:
            return decode(what, body, kind, encoding, owner, self._most)
        return await anyio.to_process.run_sync(
            _decode_politely, what, body, kind, encoding, owner, self._most, limiter=self._limiter
        )


def _decode_politely(what: RecordKind, body: bytes, kind: str, encoding: str, owner: Owner | None, most: int) -> Mapped:
    _give_way()
    return decode(what, body, kind, encoding, owner, most)


@cache
def _give_way() -> None:
    """This process works behind the others' backs: whoever answers somebody goes first."""
    os.nice(10)


def decode(what: RecordKind, body: bytes, kind: str, encoding: str, owner: Owner | None, most: int) -> Mapped:
    """The same, here and now."""
    unpacked = messages.unpack(body, encoding, most)
    if what == "logs":
        return map_logs(messages.read(unpacked, kind, ExportLogsServiceRequest), owner)
    return map_spans(messages.read(unpacked, kind, ExportTraceServiceRequest), owner)
