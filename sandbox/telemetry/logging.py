"""The service's log: lines on the console, and the same lines as rows of `logs`."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.settings import Settings
from sandbox.telemetry import context
from sandbox.telemetry.recorder import Recorder, writing
from sandbox.telemetry.rows import LogRow
from sandbox.telemetry.tracing import SERVICE_NAME, current_ids

#: Attributes of every log record; the others were passed as `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Libraries of which only warnings are logged.
_QUIET: Final = ("asyncio", "docker", "httpcore", "httpx", "psycopg", "sqlalchemy", "urllib3", "websockets")
_COLOURS: Final = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}
_RESET: Final = "\x1b[0m"
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def configure_logging(settings: Settings, recorder: Recorder | None = None) -> None:
    """Log everything at `settings.log_level` and above to stderr and, if there is one, to the recorder.

    Replaces the handlers of the root logger. uvicorn's loggers use the same handlers, but its access log is turned off;
    run it with `log_config=None`.
    """
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(ConsoleFormatter(colour=sys.stderr.isatty()))
    handlers: list[logging.Handler] = [console]
    if recorder is not None:
        handlers.append(RecordingHandler(recorder))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = name != "uvicorn.access"


class ConsoleFormatter(logging.Formatter):
    """Formats a record as one line (time in UTC, level, logger, message, request), followed by a stack trace if any.

    Control characters in a message are escaped, so that a path or a header cannot forge lines or control the terminal.
    """

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        level = f"{record.levelname:<8}"
        if self._colour:
            level = f"{_COLOURS.get(record.levelno, '')}{level}{_RESET}"
        line = f"{time} {level} {record.name}: {record.getMessage().translate(_CONTROL)}"
        bound = context.current()
        shown = {"request": bound.request_id, "session": bound.session_id}
        line += "".join(f" {name}={value}" for name, value in shown.items() if value)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class RecordingHandler(logging.Handler):
    """Passes each record to the recorder, with the current context. Never blocks and never raises.

    Records that are logged while another is handled, or by the recorder while it writes, are ignored: to handle them
    could recurse without end.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._busy = threading.local()
        self._stack = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        if writing.get() or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            self._recorder.add_log(self._to_row(record))
        except Exception:  # noqa: BLE001 - a message that cannot be formatted must not break the code that logs it
            self.handleError(record)
        finally:
            self._busy.now = False

    def _to_row(self, record: logging.LogRecord) -> LogRow:
        bound = context.current()
        metadata: dict[str, Any] = {"logger": record.name}
        if bound.session_id is not None:
            metadata["session_id"] = bound.session_id
        ids = current_ids()
        if ids is not None:
            metadata["trace_id"], metadata["span_id"] = ids
        metadata.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        return LogRow(
            timestamp=datetime.fromtimestamp(record.created, UTC),
            level=_documented_level(record.levelno),
            service=SERVICE_NAME,
            message=record.getMessage(),
            stack_trace=self._stack.formatException(record.exc_info) if record.exc_info else None,
            request_id=bound.request_id,
            user_id=bound.user_id,
            metadata=metadata,
        )


def _documented_level(number: int) -> str:
    """The highest documented level that is not above this level number."""
    for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO):
        if number >= level:
            return logging.getLevelName(level)
    return "DEBUG"
