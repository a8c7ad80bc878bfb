"""The stored output of a process: what was written can be read from any offset that is still stored."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox.guest.spool import Spool

WRITES = st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=40)), max_size=40)


@given(WRITES, st.integers(1, 50), st.integers(1, 200), st.integers(1, 5), st.integers(1, 70))
def test_reads_back_what_was_written(
    writes: list[tuple[int, bytes]], segment: int, limit: int, runs: int, piece: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        now = itertools.count(1)
        spool = Spool(folder, segment=segment, limit=limit, runs=runs, clock=lambda: next(now) // 2)
        for stream, data in writes:
            spool.write(stream, data)
        times = [(number + 1) // 2 * 1000 for number, (_, data) in enumerate(writes) for _ in data]
        whole = b"".join(data for _, data in writes)
        streams = [stream for stream, data in writes for _ in data]
        assert spool.end == len(whole)
        oldest = spool.read(0, len(whole))[0][1] if whole else 0
        assert len(whole) - oldest <= limit + segment
        for start in {0, oldest, (oldest + len(whole)) // 2, len(whole)}:
            offset = max(start, oldest)
            while chunks := spool.read(offset, piece):
                assert sum(len(data) for *_, data in chunks) <= piece
                for stream, position, time_ms, data in chunks:
                    assert position == offset
                    assert data == whole[position : position + len(data)]
                    assert {stream} == set(streams[position : position + len(data)])
                    assert {time_ms} == set(times[position : position + len(data)])
                    offset += len(data)
            assert offset == len(whole)


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), clock=lambda: 1.5)
    spool.write(0, b"data")
    assert os.listdir(str(tmp_path)) == []
    assert spool.read(0, 100) == [(0, 0, 1500, b"data")]


def test_a_disk_that_refuses_writes_costs_the_output_only(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(str(folder), clock=lambda: 1.5)
    spool.write(0, b"lost")
    folder.mkdir()
    spool.write(1, b"kept")
    assert spool.end == 8
    assert spool.read(0, 100) == [(1, 4, 1500, b"kept")]


async def test_waiting_for_more_and_for_the_end(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    spool = Spool(str(tmp_path))
    assert await spool.wait(0, 0.01)  # nothing yet, and the log goes on
    loop.call_later(0.05, spool.write, 0, b"x")
    assert await spool.wait(0, 10)
    loop.call_later(0.05, spool.finish)
    assert not await spool.wait(1, 10)
    assert await spool.wait(0, 0)  # the log has ended, but not all of it has been read
