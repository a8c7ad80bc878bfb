"""Functions that the tests call in worker processes."""

from __future__ import annotations

import errno
import os
import time

from sandbox.errors import InvalidInput


def add(left: int, right: int) -> int:
    return left + right


def many(size: int) -> bytes:
    return bytes(size)


def nice_and_pid() -> tuple[int, int]:
    return os.nice(0), os.getpid()


def refuse() -> None:
    raise InvalidInput("no", hint="never", code="of_this_test")


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail() -> None:
    raise ZeroDivisionError("a mistake")


def spin() -> None:
    while True:
        pass


def sleep(path: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


def grow() -> int:
    return len(bytearray(1 << 40))


def recurse() -> None:
    recurse()


def mark(path: str) -> bool:
    """Whether no other call of this function with the path is under way."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    time.sleep(0.02)
    os.close(descriptor)
    os.unlink(path)
    return True
