"""Limits of the kernel that are too low for many sandboxes."""

from __future__ import annotations

from pathlib import Path

from sandbox.cli.kernel_limits import KernelLimit, low_limits


def test_limits_that_are_too_low_are_named(tmp_path: Path) -> None:
    settings = {"kernel/pid_max": "32768", "fs/inotify/max_user_watches": "8192", "fs/file-max": "many"}
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert list(low_limits(100, 500, tmp_path)) == [KernelLimit("fs.inotify.max_user_watches", 8192, 65_536)]
    many = list(low_limits(1000, 500, tmp_path))
    assert many[0] == KernelLimit("kernel.pid_max", 32_768, 100_000)
    assert str(many[0]) == "kernel.pid_max is 32768, needed are 100000"
