"""Finding and starting an engine, with a real dockerd in a network namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.engine.docker.connection import engine_version
from sandbox.errors import EngineError
from sandbox.provision.daemon import DaemonFailed, LocalDaemon
from sandbox.provision.engine import EngineMissing, ensure_engine, stop_engine
from sandbox.settings import Settings


def separate_daemon(folder: Path, *arguments: str) -> LocalDaemon:
    """A daemon that is separate from the machine's own. Without its own network it would remove that one's bridge."""
    apart = ("--bridge=none", "--iptables=false", "--storage-driver=vfs")
    places = (f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/docker.pid")
    return LocalDaemon(
        folder / "home",
        f"unix://{folder}/docker.sock",
        (*apart, *places, *arguments),
        program=("unshare", "--net", "dockerd"),
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a daemon. Its path is short, because the path of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="dockerd-") as name:
        folder = Path(name)
        yield folder
        separate_daemon(folder).stop()
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for target in sorted((path for path in mounted if path.startswith(f"{name}/")), reverse=True):
            subprocess.run(["umount", "--lazy", target], check=True)


def test_a_daemon_is_started_and_found_and_stopped(folder: Path) -> None:
    bridge = Path("/sys/class/net/docker0")
    had_bridge = bridge.exists()
    daemon = separate_daemon(folder)
    assert daemon.running_pid() is None
    pid = daemon.start()
    assert engine_version(daemon.host)
    again = separate_daemon(folder)
    assert again.running_pid() == pid
    assert again.stop()
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    assert not again.answers()
    assert not again.stop()
    assert bridge.exists() == had_bridge


def test_a_killed_daemon_is_not_running(folder: Path) -> None:
    daemon = separate_daemon(folder)
    pid = daemon.start()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert daemon.running_pid() is None
    assert not daemon.stop()


def test_the_error_for_a_daemon_that_cannot_start_contains_its_log(folder: Path) -> None:
    daemon = separate_daemon(folder, "--log-level=nonsense")
    with pytest.raises(DaemonFailed, match="nonsense") as raised:
        daemon.start()
    assert raised.value.code == "engine_start_failed"
    assert daemon.running_pid() is None


def test_another_process_with_the_recorded_pid_is_not_stopped(folder: Path) -> None:
    daemon = separate_daemon(folder)
    daemon.start()
    record = folder / "home" / "dockerd.json"
    recorded = record.read_text()
    assert daemon.stop()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        pid = recorded.split('"pid": ')[1].split(",")[0]
        record.write_text(recorded.replace(pid, str(bystander.pid), 1))
        assert not daemon.stop()
        assert bystander.poll() is None
        bystander.kill()


async def test_an_engine_that_answers_is_used_unchanged(tmp_path: Path) -> None:
    facts = await ensure_engine(Settings(home=tmp_path, docker_host=None))
    assert facts.docker_host is None
    assert facts.version == engine_version(None)
    assert not facts.started_by_us
    assert not stop_engine(tmp_path)
    assert engine_version(None) == facts.version


async def test_a_configured_engine_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/docker.sock"
    with pytest.raises(EngineMissing, match="DOCKER_HOST") as raised:
        await ensure_engine(Settings(home=tmp_path, docker_host=host))
    assert raised.value.code == "engine_missing"
    assert host in raised.value.message
    assert "DOCKER_HOST" in raised.value.hint
    assert not (tmp_path / "engine").exists()


def test_a_failed_connection_leaves_no_socket_open(tmp_path: Path) -> None:
    """The test run treats warnings as errors, so an unclosed socket fails the test."""
    with pytest.raises(EngineError):
        engine_version(f"unix://{tmp_path}/docker.sock")
