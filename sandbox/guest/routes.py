"""The functions of the guest agent. Each is `POST /function` with JSON arguments (`request.py`); errors are answered as
{code, message}.

ping                                                 {pid, protocol}
stats | ports                                        `GuestStats` | {ports: [...]}
stats_history                                        {samples: [`UsageSample`, oldest first]}
set_variables {variables}                            {}; for everything that is started after that
exec {command, cwd?, env?, timeout?, max_output}     stdin as raw body -> {exit_code, ..., stdout: length} stdout stderr
start {name, command, cwd?, env?, restart_finished, paced?}     `ProcessInfo`
process {name} | processes                           {process: ...|null} | {processes: [...]}
wait {name, seconds}                                 `ProcessInfo`, when it has ended or the time is over
signal {name, signal} | kill_all                     {} | {killed}
stop                                                 {}; then the guest agent ends, and the container with it
ps | kill {pid, signal}                              {processes: [`RunningProcess`, ...]} | {}
forget {name}                                        {}; kills it if it runs, and deletes its output
stdin {name, close?}                                 raw body -> {}
output {name, offset, follow}                        a stream of frames: stream (1 byte), offset (8), length (4), bytes;
                                                     one of length 0 now and then is a heartbeat; stream 2 is the time
                                                     of the bytes that follow, in milliseconds since 1970, as `offset`
read | write | stat | list | mkdir | move | remove | watch | put_tar | get_tar     see `as_user.py`
changes | pack_changes | unpack_changes              see `as_user.py`
neighbours {ports: {port: host}, own?, planned?}     {refused: {port: why}}: see `port_forwarding.py`
port_sockets {open: {name: port}, close: [name]}      {sockets: {name: {port, connections, idle_seconds}}}:
                                                     see `port_sockets.py`
pty {command?, columns, rows, cwd?, env?, terminal?, after?}      101, then frames both ways (`terminal.py`)
exports                                              101, then exports of apps and answers to them (`export_queue.py`)
CONNECT 127.0.0.1:PORT                               200, then the port's bytes
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .app_port import open_tunnel
from .as_user import FUNCTIONS, serve_as_user
from .children import outcome
from .command import Command, to_argv
from .errors import DISK_FULL, HungUp, Refused, bad_request
from .process_list import belongs_to, running_processes
from .request import Request, argument
from .state import GuestState
from .stats import listening_ports, read_stats

PROTOCOL = 1
STDIN_LIMIT = 64 * 1024 * 1024
#: Most output that a command may request to be buffered in memory.
OUTPUT_LIMIT = 64 * 1024 * 1024
FRAME = struct.Struct(">BQI")
#: In place of the stream in a frame: the frame holds a time.
TIME = 2
#: Most output of a process that is sent as one chunk.
BATCH = 256 * 1024
#: A client that follows a silent process is sent an empty frame this often, by which a broken connection is noticed.
HEARTBEAT_SECONDS = 10.0
LONGEST_WAIT = 60.0

Handler = Callable[[GuestState, Request], Awaitable[None]]


async def dispatch(state: GuestState, request: Request) -> None:
    """Call the function and answer its errors. Raises HungUp or ConnectionError if the connection cannot be used any
    more."""
    try:
        if request.http.method == "CONNECT":
            await open_tunnel(request)
            return
        handler = ROUTES.get(request.http.target.removeprefix("/"))
        if request.http.method != "POST" or handler is None:
            raise bad_request(f"there is no function {request.http.method} {request.http.target}")
        await handler(state, request)
    except Refused as error:
        await _refuse(request, error)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        full = error.errno in DISK_FULL
        await _refuse(request, Refused("disk_full" if full else "agent_refused", str(error)))


async def _refuse(request: Request, error: Refused) -> None:
    if request.answered:
        raise HungUp
    await request.http.drain()
    await request.answer(error.document(), status=error.status)


async def _ping(_state: GuestState, request: Request) -> None:
    await request.answer({"pid": os.getpid(), "protocol": PROTOCOL})


async def _stats(state: GuestState, request: Request) -> None:
    await request.answer(read_stats(state.user.workspace))


async def _stats_history(state: GuestState, request: Request) -> None:
    await request.answer({"samples": list(state.usage.samples)})


async def _ports(state: GuestState, request: Request) -> None:
    # Only ports of apps are of interest, not the guest agent's own.
    await request.answer({"ports": [port for port in listening_ports() if port != state.otlp.port]})


def command_arguments(state: GuestState, args: dict[str, Any]) -> tuple[str | list[str], str, dict[str, str]]:
    """Command, folder and environment, checked."""
    command = argument(args, "command", (str, list))
    if not command or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise bad_request("the command is empty or not made of strings without NUL")
    env = _environment(argument(args, "env", dict, None) or {})
    cwd = os.path.join(state.user.workspace, argument(args, "cwd", str, None) or "")
    return command, cwd, env


def _environment(env: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) and name and not {"=", "\0"} & set(name) for name, value in env.items()):
        raise bad_request("the environment must map names to strings")
    return env


async def _set_variables(state: GuestState, request: Request) -> None:
    state.user.variables.replace(_environment(argument(request.args, "variables", dict)))
    await request.answer({})


async def _exec(state: GuestState, request: Request) -> None:
    command, cwd, env = command_arguments(state, request.args)
    seconds = argument(request.args, "timeout", (int, float), None)
    limit = min(argument(request.args, "max_output", int), OUTPUT_LIMIT)
    stdin = await request.read_all(STDIN_LIMIT)
    result = await Command(state.children, limit).run(
        lambda files: state.launcher.start(to_argv(command), cwd=cwd, env=env, files=files),
        stdin,
        seconds,
        request.connection,
    )
    code, number = outcome(result.status)
    document = {
        "exit_code": code,
        "signal": number,
        "duration_ms": round(result.seconds * 1000),
        "timed_out": result.timed_out,
        "truncated": result.truncated,
        "out_of_memory": result.out_of_memory,
        "stdout": len(result.stdout),
    }
    await request.answer(document, result.stdout, result.stderr)


async def _start(state: GuestState, request: Request) -> None:
    command, cwd, env = command_arguments(state, request.args)
    name = argument(request.args, "name", str)
    if not name:
        raise bad_request("the name is empty")
    restart = argument(request.args, "restart_finished", bool, True)
    paced = argument(request.args, "paced", bool, False)
    process = await state.processes.start(name, command, cwd, env, restart, paced)
    await request.answer(process.info())


async def _process(state: GuestState, request: Request) -> None:
    process = state.processes.find(argument(request.args, "name", str))
    await request.answer({"process": process.info() if process else None})


async def _processes(state: GuestState, request: Request) -> None:
    await request.answer({"processes": [process.info() for process in state.processes.list()]})


async def _wait(state: GuestState, request: Request) -> None:
    process = state.processes.get(argument(request.args, "name", str))
    await process.wait(min(argument(request.args, "seconds", (int, float)), LONGEST_WAIT))
    await request.answer(process.info())


def _signal_number(request: Request) -> int:
    number: int = argument(request.args, "signal", int)
    if not 1 <= number <= 64:
        raise bad_request(f"there is no signal {number}")
    return number


async def _signal(state: GuestState, request: Request) -> None:
    number = _signal_number(request)
    await state.processes.get(argument(request.args, "name", str)).signal(state.children, number)
    await request.answer({})


async def _ps(state: GuestState, request: Request) -> None:
    found = running_processes(state.user.uid, state.children.helpers())
    await request.answer({"processes": [process._asdict() for process in found]})


async def _kill(state: GuestState, request: Request) -> None:
    pid, number = argument(request.args, "pid", int), _signal_number(request)
    if pid in state.children.helpers() or not belongs_to(state.user.uid, pid):
        raise Refused("process_not_found", f"the sandbox has no process {pid}", 404)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    await request.answer({})


async def _forget(state: GuestState, request: Request) -> None:
    process = state.processes.forget(argument(request.args, "name", str))
    # What a command that has ended left in the background runs on, as after `exec`.
    if process is not None and process.running:
        await process.signal(state.children, signal.SIGKILL)
    await request.answer({})


async def _kill_all(state: GuestState, request: Request) -> None:
    await request.answer({"killed": await state.children.kill_all()})


async def _stop(_state: GuestState, request: Request) -> None:
    await request.answer({})
    signal.raise_signal(signal.SIGTERM)


async def _stdin(state: GuestState, request: Request) -> None:
    process = state.processes.get(argument(request.args, "name", str))
    data = await request.read_all(STDIN_LIMIT)
    await process.write(data, argument(request.args, "close", bool, False))
    await request.answer({})


async def _output(state: GuestState, request: Request) -> None:
    process = state.processes.get(argument(request.args, "name", str))
    offset = argument(request.args, "offset", int, 0)
    follow = argument(request.args, "follow", bool, True)
    await request.start_stream()
    sent_time = None
    while True:
        # Before reading, so that what is printed between the two is read in the next round.
        goes_on = await process.spool.wait(offset, HEARTBEAT_SECONDS) if follow else False
        parts = []
        for kind, position, time_ms, data in process.spool.read(offset, BATCH):
            if time_ms != sent_time:
                # A service of an earlier release ignores a frame without bytes.
                parts.append(FRAME.pack(TIME, time_ms, 0))
                sent_time = time_ms
            parts += [FRAME.pack(kind, position, len(data)), data]
            offset = position + len(data)
        if not parts:
            if not goes_on:
                break
            parts.append(FRAME.pack(0, offset, 0))
        await request.write(*parts)
        process.taken(offset)
    await request.end_stream()


async def _forward_ports(state: GuestState, request: Request) -> None:
    hosts, own = argument(request.args, "ports", dict), argument(request.args, "own", int, None)
    if not all(port.isdecimal() and 0 < int(port) < 65_536 and isinstance(host, str) for port, host in hosts.items()):
        raise bad_request("the ports must map numbers to names of hosts")
    planned = argument(request.args, "planned", int, None)
    for port in (own, planned):
        if port is not None and not 0 < port < 65_536:
            raise bad_request(f"there is no port {port}")
    refused = await state.ports.forward({int(port): host for port, host in hosts.items()}, own, planned)
    await request.answer({"refused": refused})


async def _port_sockets(state: GuestState, request: Request) -> None:
    opened = argument(request.args, "open", dict, {})
    closed = argument(request.args, "close", list, [])
    if not all(isinstance(port, int) for port in opened.values()) or not all(isinstance(name, str) for name in closed):
        raise bad_request("sockets to open map names to ports, those to close are names")
    await request.answer({"sockets": await state.port_sockets.change(opened, closed)})


async def _pty(state: GuestState, request: Request) -> None:
    command, cwd, env = command_arguments(state, {"command": "-", **request.args})
    await state.terminals.serve(request, None if command == "-" else command, cwd, env)


async def _exports(state: GuestState, request: Request) -> None:
    await request.switch(101)
    await state.exports.serve(request.connection)


ROUTES: dict[str, Handler] = {
    "ping": _ping,
    "stats": _stats,
    "stats_history": _stats_history,
    "ports": _ports,
    "set_variables": _set_variables,
    "exec": _exec,
    "start": _start,
    "process": _process,
    "processes": _processes,
    "wait": _wait,
    "signal": _signal,
    "forget": _forget,
    "kill_all": _kill_all,
    "stop": _stop,
    "ps": _ps,
    "kill": _kill,
    "stdin": _stdin,
    "output": _output,
    # The name on the wire is that of earlier releases, which the service must be able to talk to.
    "neighbours": _forward_ports,
    "port_sockets": _port_sockets,
    "pty": _pty,
    "exports": _exports,
    **{name: partial(serve_as_user, name=name) for name in FUNCTIONS},
}
