"""What the agent answers. Each is `POST /function` with JSON arguments (`wire.py`); errors are {code, message}.

ping                                                 {pid, protocol}
stats | ports                                        `AgentStats` | {ports: [...]}
exec {command, cwd?, env?, timeout?, max_output}     stdin as raw body -> {exit_code, ..., stdout: length} stdout stderr
start {name, command, cwd?, env?, restart_finished}  `ProcessInfo`
process {name} | processes                           {process: ...|null} | {processes: [...]}
wait {name, seconds}                                 `ProcessInfo`, when it has ended or the time is over
signal {name, signal} | kill_all                     {} | {killed}
forget {name}                                        {}; kills it if it runs and drops its output
stdin {name, close?}                                 raw body -> {}
output {name, offset, follow}                        a stream of frames: stream (1 byte), offset (8), length (4), bytes;
                                                     one of length 0 now and then says the agent is alive
read | write | stat | list | mkdir | move | remove | watch | put_tar | get_tar     see `as_user.py`
neighbours {ports: {port: host}, own?}               {refused: {port: why}}: see `neighbours.py`
pty {command?, columns, rows, cwd?, env?}            101, then frames both ways (`terminal.py`)
exports                                              101, then what apps report, and answers to it (`exports.py`)
CONNECT 127.0.0.1:PORT                               200, then the port's bytes
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from typing import Any

from . import figures
from .agent import Agent
from .as_user import FUNCTIONS, serve_as_user
from .children import outcome
from .run import HungUpMeanwhile, Run, to_argv
from .tunnel import open_tunnel
from .wire import HungUp, Refused, Request, argument, bad_request

PROTOCOL = 1
STDIN_LIMIT = 64 * 1024 * 1024
#: Most output a command may ask to have kept in memory.
OUTPUT_LIMIT = 64 * 1024 * 1024
FRAME = struct.Struct(">BQI")
BATCH = 256 * 1024
#: A follower that hears nothing for this long is sent an empty frame; a broken connection is noticed by it.
HEARTBEAT_SECONDS = 10.0
LONGEST_WAIT = 60.0


def dispatch(agent: Agent, request: Request) -> None:
    """Answer the request, whatever becomes of it."""
    try:
        if request.method == "CONNECT":
            open_tunnel(request)
            return
        handler = ROUTES.get(request.target.removeprefix("/"))
        if request.method != "POST" or handler is None:
            raise bad_request(f"there is no function {request.method} {request.target}")
        handler(agent, request)
    except Refused as error:
        _refuse(request, error)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        _refuse(request, Refused("agent_refused", str(error)))


def _refuse(request: Request, error: Refused) -> None:
    if request.answered:
        raise HungUp
    request.drain()
    request.refuse(error)


def _ping(_agent: Agent, request: Request) -> None:
    request.answer({"pid": os.getpid(), "protocol": PROTOCOL})


def _stats(agent: Agent, request: Request) -> None:
    request.answer(figures.stats(agent.user.workspace))


def _ports(agent: Agent, request: Request) -> None:
    # Without the agent's own: what is asked for are the apps'.
    request.answer({"ports": [port for port in figures.listening_ports() if port != agent.exporters.port]})


def command_arguments(agent: Agent, args: dict[str, Any]) -> tuple[str | list[str], str, dict[str, str]]:
    """Command, folder and environment, checked."""
    command = argument(args, "command", (str, list))
    if not command or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise bad_request("the command is empty or not made of strings without NUL")
    env = argument(args, "env", dict, None) or {}
    if not all(isinstance(value, str) and name and not {"=", "\0"} & set(name) for name, value in env.items()):
        raise bad_request("the environment must map names to strings")
    cwd = os.path.join(agent.user.workspace, argument(args, "cwd", str, None) or "")
    return command, cwd, env


def _exec(agent: Agent, request: Request) -> None:
    command, cwd, env = command_arguments(agent, request.args)
    seconds = argument(request.args, "timeout", (int, float), None)
    limit = min(argument(request.args, "max_output", int), OUTPUT_LIMIT)
    stdin = request.read_all(STDIN_LIMIT)
    try:
        result = Run(agent.children, request.connection.sock, limit).run(
            lambda files: agent.launcher.start(to_argv(command), cwd=cwd, env=env, files=files),
            stdin,
            seconds,
            agent.hub.drain,
        )
    except HungUpMeanwhile:
        raise HungUp from None
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
    request.answer(document, result.stdout, result.stderr)


def _start(agent: Agent, request: Request) -> None:
    command, cwd, env = command_arguments(agent, request.args)
    name = argument(request.args, "name", str)
    if not name:
        raise bad_request("the name is empty")
    restart = argument(request.args, "restart_finished", bool, True)
    request.answer(agent.processes.start(name, command, cwd, env, restart).info())


def _process(agent: Agent, request: Request) -> None:
    process = agent.processes.find(argument(request.args, "name", str))
    request.answer({"process": process.info() if process else None})


def _processes(agent: Agent, request: Request) -> None:
    request.answer({"processes": [process.info() for process in agent.processes.list()]})


def _wait(agent: Agent, request: Request) -> None:
    process = agent.processes.get(argument(request.args, "name", str))
    process.wait(min(argument(request.args, "seconds", (int, float)), LONGEST_WAIT))
    request.answer(process.info())


def _signal(agent: Agent, request: Request) -> None:
    number = argument(request.args, "signal", int)
    if not 1 <= number <= 64:
        raise bad_request(f"there is no signal {number}")
    agent.processes.get(argument(request.args, "name", str)).signal(agent.children, number)
    request.answer({})


def _forget(agent: Agent, request: Request) -> None:
    process = agent.processes.forget(argument(request.args, "name", str))
    if process is not None:
        process.signal(agent.children, signal.SIGKILL)
    request.answer({})


def _kill_all(agent: Agent, request: Request) -> None:
    request.answer({"killed": agent.children.kill_all()})


def _stdin(agent: Agent, request: Request) -> None:
    process = agent.processes.get(argument(request.args, "name", str))
    process.write(request.read_all(STDIN_LIMIT), argument(request.args, "close", bool, False))
    request.answer({})


def _output(agent: Agent, request: Request) -> None:
    process = agent.processes.get(argument(request.args, "name", str))
    offset = argument(request.args, "offset", int, 0)
    follow = argument(request.args, "follow", bool, True)
    stream = request.stream()
    stream.start()
    while True:
        # Asked before reading: what is printed between the two is then read in the next round.
        goes_on = process.spool.wait(offset, HEARTBEAT_SECONDS) if follow else False
        parts = []
        for kind, at, data in process.spool.read(offset, BATCH):
            parts += [FRAME.pack(kind, at, len(data)), data]
            offset = at + len(data)
        if not parts:
            if not goes_on:
                break
            parts.append(FRAME.pack(0, offset, 0))
        stream.write(*parts)
    stream.end()


def _neighbours(agent: Agent, request: Request) -> None:
    hosts, own = argument(request.args, "ports", dict), argument(request.args, "own", int, None)
    if not all(port.isdecimal() and 0 < int(port) < 65_536 and isinstance(host, str) for port, host in hosts.items()):
        raise bad_request("the ports must map numbers to names of hosts")
    if own is not None and not 0 < own < 65_536:
        raise bad_request(f"there is no port {own}")
    request.answer({"refused": agent.neighbours.lead({int(port): host for port, host in hosts.items()}, own)})


def _as_user(function: str) -> Callable[[Agent, Request], None]:
    def handler(agent: Agent, request: Request) -> None:
        serve_as_user(agent, request, function)

    return handler


def _pty(agent: Agent, request: Request) -> None:
    from .terminal import serve_terminal

    command, cwd, env = command_arguments(agent, {"command": "-", **request.args})
    serve_terminal(agent, request, None if command == "-" else command, cwd, env)


def _exports(agent: Agent, request: Request) -> None:
    agent.exports.collect(request)


ROUTES: dict[str, Callable[[Agent, Request], None]] = {
    "ping": _ping,
    "stats": _stats,
    "ports": _ports,
    "exec": _exec,
    "start": _start,
    "process": _process,
    "processes": _processes,
    "wait": _wait,
    "signal": _signal,
    "forget": _forget,
    "kill_all": _kill_all,
    "stdin": _stdin,
    "output": _output,
    "neighbours": _neighbours,
    "pty": _pty,
    "exports": _exports,
    **{name: _as_user(name) for name in FUNCTIONS},
}
