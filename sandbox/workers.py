"""Runs functions over untrusted input in processes that can be killed.

What a caller wrote may make a parser slow, deep or large in ways that no check before it finds. Each call therefore has
a process of its own with a limit on processor time and memory and a deadline, and the calls of one caller run one after
the other: a slow input delays only its sender.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Final, TypeVar

from sandbox.concurrency import uninterrupted
from sandbox.errors import InvalidInput, Kind, SandboxError

T = TypeVar("T")

#: Niceness of the processes: those that answer requests come first.
NICE: Final = 10
#: Calls of one caller that may wait for that caller's earlier call.
_WAITING_PER_CALLER: Final = 16
#: Longest result, in bytes.
_RESULT_BYTES: Final = 64 * 1024 * 1024

_preloaded: set[str] = {__name__}
log = logging.getLogger(__name__)


class InputTooComplex(InvalidInput):
    """The input took more processor time or memory than is given to one input, or is nested too deeply."""

    code = "input_too_complex"


class WorkersBusy(SandboxError):
    """The caller has too many inputs waiting to be read."""

    code = "too_many_requests"
    kind = Kind.TOO_MANY


class WorkerTimeout(SandboxError):
    """The result was not there in time, although the processor time was not used up: the machine is busy."""

    code = "worker_timeout"
    kind = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """What one call may use."""

    cpu_seconds: int
    memory_bytes: int
    #: From its start to its result.
    deadline_seconds: float


def fork_server(modules: Collection[str] = ()) -> ForkServerContext:
    """The context whose processes are forked from one that has imported these modules and those of earlier calls.

    Processes then start within milliseconds. Only calls before the first process have an effect on what is imported.
    """
    _preloaded.update(modules)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted(_preloaded))
    return context


class Workers:
    """Runs calls, at most `processes` at once. Used from one event loop.

    The processes end when their calls end, also after the service was killed.
    """

    def __init__(self, processes: int | None = None, modules: Collection[str] = ()) -> None:
        """`modules` contain the functions that will be called."""
        self._context = fork_server(modules)
        self._free = asyncio.Semaphore(processes or max(2, min(os.cpu_count() or 1, 4)))
        self._turns: dict[str, asyncio.Lock] = {}
        self._callers: Counter[str] = Counter()

    async def run(self, caller: str, limits: WorkLimits, function: Callable[..., T], *args: Any) -> T:
        """The result of `function(*args)`, which must be a function at the top of a module, with small arguments.

        `caller` is whose input it is. Raises what the function raises as SandboxError or OSError; InputTooComplex;
        WorkerTimeout; WorkersBusy if the caller has too many calls waiting. A cancelled call's process is killed.
        """
        async with self._turn(caller), self._free:
            result: T = await _Call(self._context, limits, function, args).result()
            return result

    @asynccontextmanager
    async def _turn(self, caller: str) -> AsyncIterator[None]:
        """Wait until no other call of this caller is under way."""
        if self._callers[caller] > _WAITING_PER_CALLER:
            raise WorkersBusy(
                "Too many uploads or reports of one caller are waiting to be read.",
                hint="Send the same again after Retry-After seconds.",
            )
        self._callers[caller] += 1
        try:
            async with self._turns.setdefault(caller, asyncio.Lock()):
                yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
                del self._turns[caller]


class _Call:
    """One call in a process of its own."""

    def __init__(
        self, context: ForkServerContext, limits: WorkLimits, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._limits = limits
        self._name = function.__name__
        self._receiver, sender = context.Pipe(duplex=False)
        self._sender = sender
        self._process: ForkServerProcess = context.Process(
            target=_work, args=(sender, limits, function, args), name=f"worker {function.__name__}", daemon=True
        )

    async def result(self) -> Any:
        try:
            # It blocks until the fork server answers, which has to start first.
            await uninterrupted(asyncio.to_thread(self._process.start))
            self._sender.close()
            async with asyncio.timeout(self._limits.deadline_seconds):
                await _readable(self._receiver.fileno())
                outcome = await asyncio.to_thread(self._receive)
        except TimeoutError:
            raise WorkerTimeout(
                f"Reading the input took more than {self._limits.deadline_seconds:.0f} s.",
                hint="Send the same again later.",
            ) from None
        finally:
            await uninterrupted(asyncio.to_thread(self._end))
        return self._unwrap(outcome)

    def _receive(self) -> tuple[str, Any] | None:
        """What the process has sent; None if it ended without a result."""
        try:
            outcome: tuple[str, Any] = pickle.loads(self._receiver.recv_bytes(_RESULT_BYTES))  # noqa: S301 - our process
        except (EOFError, ConnectionResetError):
            return None
        return outcome

    def _end(self) -> None:
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._sender.close()
        self._receiver.close()

    def _unwrap(self, outcome: tuple[str, Any] | None) -> Any:
        match outcome:
            case ("result", value):
                return value
            case ("raised", (SandboxError() | OSError()) as error):
                raise error
            case ("failed", str(trace)):
                log.error("%s failed in a worker process:\n%s", self._name, trace)
                raise RuntimeError(f"{self._name} failed in a worker process")
        raise InputTooComplex(
            "The input is too large, too deeply nested or too intricate to be read with the time and memory for one "
            f"input ({self._limits.cpu_seconds} s, {self._limits.memory_bytes >> 20} MiB).",
            hint="Send it in parts, or leave out what is generated.",
        )


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read, or the other end is closed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
        os.set_blocking(descriptor, True)  # uvloop has made it non-blocking


def _work(sender: Connection, limits: WorkLimits, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """The process: calls the function within the limits and sends its outcome."""
    os.nice(NICE)
    # On Ctrl-C the terminal signals all processes of its group, but the service is to end this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It ends by itself if the service was killed and cannot end it.
    signal.alarm(int(limits.deadline_seconds) + 5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    address_space = _address_space() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    try:
        outcome: tuple[str, Any] = ("result", function(*args))
    except (SandboxError, OSError) as error:
        outcome = ("raised", error)
    except (RecursionError, MemoryError):
        return
    except Exception:  # noqa: BLE001 - it is logged in the service
        outcome = ("failed", traceback.format_exc())
    try:
        sender.send_bytes(pickle.dumps(outcome))
    except BrokenPipeError:  # the call was given up
        return


def _address_space() -> int:
    """Bytes of this process's address space, most of which it shares with the process that it was forked from."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
