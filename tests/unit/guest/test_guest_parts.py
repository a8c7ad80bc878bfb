"""Parts of the guest agent that need no process: command line, stats, changes of a folder, programs."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from sandbox.guest import process_list, stats
from sandbox.guest.archive import check
from sandbox.guest.children import outcome
from sandbox.guest.errors import Refused
from sandbox.guest.launcher_process import find_program
from sandbox.guest.options import Options, parse
from sandbox.guest.watch import changes, snapshot

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
   3: 0B00007F:8B2D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:1435 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


def test_command_line() -> None:
    assert parse(["serve", "--socket", "/s", "--user-uid", "1001"]) == Options("serve", socket="/s", user_uid=1001)
    for wrong in (
        [],
        ["run"],
        ["serve", "--socket"],
        ["serve", "--port", "1"],
        ["serve", "--user-uid", "0"],
        ["serve", "--account-uid", "x"],
    ):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_listening_ports() -> None:
    loopback, everywhere, ipv6 = "0100007F", "00000000", "00000000000000000000000001000000"
    assert stats.parse_listening(TCP) == {(loopback, 8080), (everywhere, 80)}
    assert stats.parse_listening(TCP6) == {(ipv6, 5173)}
    assert stats.parse_listening("") == set()
    assert stats.parse_listening(TCP, without={"1", "2"}) == {(everywhere, 80)}
    assert {loopback, ipv6} == stats.LOOPBACK


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "memory.current": "5000\n",
                "memory.max": "max\n",
                "memory.stat": "anon 1\ninactive_file 2000\n",
                "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
                "pids.current": "7\n",
            },
            {"memory_bytes": 3000, "memory_limit_bytes": None, "cpu_seconds": 2.5, "pids": 7},
        ),
        (
            {
                "memory/memory.usage_in_bytes": "5000\n",
                "memory/memory.limit_in_bytes": "1048576\n",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n",
                "cpuacct/cpuacct.usage": "1500000000\n",
                "cpu.stat": "",
                "pids/pids.current": "3\n",
            },
            {"memory_bytes": 4000, "memory_limit_bytes": 1_048_576, "cpu_seconds": 1.5, "pids": 3},
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_stats_of_both_cgroup_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: dict[str, object]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(stats, "CGROUP", str(tmp_path))
    assert expected.items() <= stats.read_stats(str(tmp_path)).items()


@pytest.mark.parametrize("name", ["memory.events", "memory/memory.oom_control"])
def test_out_of_memory_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stats, "CGROUP", str(tmp_path))
    assert stats.out_of_memory_kills() == 0
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("under_oom 0\noom_kill 3\n")
    assert stats.out_of_memory_kills() == 3


def test_exit_codes() -> None:
    assert outcome(3 << 8) == (3, None)
    assert outcome(9) == (137, 9)
    assert outcome(15 | 0x80) == (143, 15)


def test_changes_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("1")
    (tmp_path / "gone").write_text("1")
    (tmp_path / "node_modules").mkdir()
    before = snapshot(str(tmp_path))
    (tmp_path / "kept").write_text("22")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("1")
    (tmp_path / "node_modules" / "skipped").write_text("1")
    found = [(kind, path.removeprefix(f"{tmp_path}/")) for kind, path in changes(before, snapshot(str(tmp_path)))]
    assert found == [("removed", "gone"), ("modified", "kept"), ("created", "new"), ("created", "new/file")]


def test_programs_are_searched_in_the_path_of_the_command(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError):
        find_program("tool", str(tmp_path))
    program.chmod(0o755)
    assert find_program("tool", f"/nowhere:{tmp_path}") == str(program)
    assert find_program("./tool", "") == "./tool"
    with pytest.raises(FileNotFoundError):
        find_program("tool", "/nowhere")


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/x", "a/.."])
def test_archive_paths_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    target.seek(0)
    with tarfile.open(fileobj=target) as tar, pytest.raises(Refused):
        check(tar, str(tmp_path))


def test_files_that_are_being_written_are_not_watched(tmp_path: Path) -> None:
    (tmp_path / ".new.b9b4822ba080.tmp").write_text("half")
    (tmp_path / ".env.tmp").write_text("x")
    assert set(snapshot(str(tmp_path))) == {str(tmp_path / ".env.tmp")}


def test_processes_of_the_user_are_read_from_proc(tmp_path: Path) -> None:
    def process(pid: int, uid: int, state: str, command: bytes) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        fields = [state, "1", *["0"] * 9, "50", "25", *["0"] * 6, "300", "0", "7"]
        (folder / "stat").write_text(f"{pid} (a) b) {' '.join(fields)} 0\n")
        (folder / "cmdline").write_bytes(command)

    (tmp_path / "stat").write_text("cpu 1\nbtime 1000\n")
    process(7, 200_000, "S", b"python3\0-c\0\xff" + b"x" * 1000)
    process(8, 200_000, "R", b"")
    process(9, 200_000, "Z", b"")
    process(10, 0, "S", b"agent")
    process(11, 200_000, "S", b"launcher")
    found = process_list.running_processes(200_000, {11}, str(tmp_path))
    assert [(one.pid, one.ppid) for one in found] == [(7, 1), (8, 1)]
    assert found[0].command.startswith("python3 -c \ufffdxxx")
    assert len(found[0].command) == process_list.COMMAND_LIMIT
    assert found[1].command == "[a) b]"
    ticks = os.sysconf("SC_CLK_TCK")
    assert (found[0].cpu_seconds, found[0].started_at) == (75 / ticks, 1000 + 300 / ticks)
    assert found[0].memory_bytes == 7 * os.sysconf("SC_PAGE_SIZE")
    assert process_list.belongs_to(200_000, 8, str(tmp_path))
    assert not process_list.belongs_to(200_000, 10, str(tmp_path))
