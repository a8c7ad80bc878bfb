"""The background service is found by the lock on its pid file, not by the pid in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cli import process
from sandbox.errors import Conflict, Unavailable
from sandbox.settings import Settings
from tests.ports import reserve_port

HOLDER = """
import time
from sandbox.cli import process
from sandbox.settings import Settings
with process.claim(Settings()):
    print("held", flush=True)
    time.sleep(600)
"""

#: As a service that is asked to end does, and ends when the test permits it.
ENDING = """
import signal, sys, time
from sandbox.cli import process
from sandbox.settings import Settings
def end(*_):
    process.note_ending(process.pid_file(Settings()))
    print("ending", flush=True)
    sys.stdin.readline()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with process.claim(Settings()):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, port=reserve_port())


@pytest.fixture
def holder(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "SANDBOX_HOME": str(settings.home), "SANDBOX_PORT": str(settings.port)}
    with subprocess.Popen([sys.executable, "-c", HOLDER], env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "held\n"
        yield running
        running.kill()


def test_only_one_service_per_data_folder_and_port(settings: Settings) -> None:
    path = process.pid_file(settings)
    assert process.running_pid(path) is None
    for _ in range(2):
        with process.claim(settings):
            assert process.running_pid(path) == os.getpid()
            with pytest.raises(Conflict, match="already"), process.claim(settings):
                pass
        assert process.running_pid(path) is None


def test_a_service_that_is_about_to_end_is_not_taken_for_a_running_one(settings: Settings) -> None:
    path = process.pid_file(settings)
    env = {**os.environ, "SANDBOX_HOME": str(settings.home), "SANDBOX_PORT": str(settings.port)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDING], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ending:
        assert ending.stdin is not None
        assert ending.stdout is not None
        assert ending.stdout.readline() == "held\n"
        assert process.staying_pid(path) == ending.pid
        ending.terminate()
        assert ending.stdout.readline() == "ending\n"
        assert process.running_pid(path) == ending.pid
        ending.stdin.close()
        assert process.staying_pid(path) is None
        assert ending.wait(60) == 0


def test_the_pid_of_another_process_is_ignored(settings: Settings) -> None:
    process.pid_file(settings).write_text(f"{os.getpid()}\n")
    assert process.running_pid(process.pid_file(settings)) is None
    assert process.stop(process.pid_file(settings)) is None


def test_stop_stops_the_service_and_can_be_repeated(settings: Settings, holder: subprocess.Popen[str]) -> None:
    path = process.pid_file(settings)
    assert process.running_pid(path) == holder.pid
    assert process.stop(path) == holder.pid
    assert holder.wait() == -signal.SIGTERM
    assert process.stop(path) is None


def test_a_new_service_can_start_after_one_was_killed(settings: Settings, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert process.running_pid(process.pid_file(settings)) is None
    with process.claim(settings):
        assert process.running_pid(process.pid_file(settings)) == os.getpid()


def test_a_port_in_use_is_an_error(settings: Settings) -> None:
    process.check_port(settings)
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.port))
        other.listen()
        with pytest.raises(Conflict, match=str(settings.port)) as taken:
            process.check_port(settings)
    assert "SANDBOX_PORT" in taken.value.hint


def test_the_error_for_a_failed_start_contains_the_end_of_the_log(settings: Settings) -> None:
    process.log_file(settings).write_text("\n".join(f"line {n}" for n in range(100)))
    with pytest.raises(Unavailable) as failed:
        process.wait_ready(settings, lambda: 3)
    assert "code 3" in failed.value.message
    assert "line 99" in failed.value.message
    assert "line 1\n" not in failed.value.message
    assert str(process.log_file(settings)) in failed.value.hint


def test_the_url_of_the_service() -> None:
    assert process.base_url(Settings(host="0.0.0.0", port=1)) == "http://127.0.0.1:1"
    assert process.base_url(Settings(host="::1", port=2)) == "http://[::1]:2"
    assert process.base_url(Settings(host="10.0.0.5", port=3)) == "http://10.0.0.5:3"
