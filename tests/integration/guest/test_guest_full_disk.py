"""Files on a file system that is full are refused as `disk_full`, and accepted again once there is room."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import GuestError, Kind
from tests.small_disk import small_disk


def archive(size: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        member = tarfile.TarInfo("large")
        member.size = size
        tar.addfile(member, io.BytesIO(bytes(size)))
    return target.getvalue()


async def test_a_full_disk_has_its_own_code(client: GuestClient, short_folder: Path) -> None:
    with small_disk(short_folder / "full", 4, mode="1777") as disk:
        disk.fill()
        for attempt in (
            client.write_file(f"{disk.folder}/note", bytes(100_000)),
            client.put_tar(str(disk.folder), archive(100_000)),
        ):
            with pytest.raises(GuestError) as refused:
                await attempt
            assert (refused.value.code, refused.value.kind) == ("disk_full", Kind.UNAVAILABLE)
            assert "No space left" in refused.value.message
        disk.clear()
        assert (await client.write_file(f"{disk.folder}/note", b"kept")).size == 4
