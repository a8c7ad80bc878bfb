"""Errors of the guest agent, and of connections to it."""

from __future__ import annotations

from sandbox.errors import GuestError, Kind

#: Most bytes of an answer that is read as a whole. The longest are the two outputs of a command, 1 MiB each.
ANSWER_BYTES = 8 * 1024 * 1024

_KINDS = {
    "process_not_found": Kind.NOT_FOUND,
    "file_not_found": Kind.NOT_FOUND,
    "process_exists": Kind.CONFLICT,
    "file_refused": Kind.INVALID,
    "command_not_found": Kind.INVALID,
    "disk_full": Kind.UNAVAILABLE,
    "port_not_open": Kind.UNAVAILABLE,
    "agent_unreachable": Kind.UNAVAILABLE,
    "agent_refused": Kind.CONFLICT,
    "answer_too_large": Kind.TOO_LARGE,
}
_HINTS = {
    "process_not_found": "List the processes to see which names are known.",
    "file_not_found": "List the folder to see what is there; relative paths are below /workspace.",
    "process_exists": "Choose another name, or end the process first.",
    "file_refused": "Choose a path that the sandbox's user may use in this way.",
    "disk_full": "Remove files in the sandbox, or free disk space on its host, then try again.",
    "command_not_found": "Install the program first, or give its full path.",
    "port_not_open": "Wait until the app listens; its log says why it does not.",
    "agent_unreachable": "See whether the container runs, and what its log says.",
    "answer_too_large": "Ask for less: a subfolder, or fewer levels.",
    "agent_refused": "See what the container is doing: its processes, memory and log.",
}


def guest_error(code: str, message: str) -> GuestError:
    """The error for a code of the guest agent, with its kind and hint. An unknown code becomes `agent_refused`."""
    if code not in _KINDS:
        code = "agent_refused"
    return GuestError(message, code=code, kind=_KINDS[code], hint=_HINTS[code])


def unreachable(reason: object) -> GuestError:
    """The error for a guest agent that does not answer."""
    return guest_error("agent_unreachable", f"the agent in the container does not answer: {reason}")


def answer_too_large() -> GuestError:
    """The error for an answer, or a part of a stream, with more than ANSWER_BYTES."""
    return guest_error("answer_too_large", f"the agent in the container answers with more than {ANSWER_BYTES:,} bytes")
