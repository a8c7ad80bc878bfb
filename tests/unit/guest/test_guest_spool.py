"""The log of a process: whatever is written can be read from any offset that is still kept."""

from __future__ import annotations

import os
import tempfile
import threading

from hypothesis import given
from hypothesis import strategies as st

from sandbox.guest.spool import Spool

WRITES = st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=40)), max_size=40)


@given(WRITES, st.integers(1, 50), st.integers(1, 200), st.integers(1, 5), st.integers(1, 70))
def test_reads_back_what_was_written(
    writes: list[tuple[int, bytes]], segment: int, limit: int, runs: int, piece: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(folder, segment=segment, limit=limit, runs=runs)
        for stream, data in writes:
            spool.write(stream, data)
        whole = b"".join(data for _, data in writes)
        streams = [stream for stream, data in writes for _ in data]
        assert spool.end == len(whole)
        kept = spool.read(0, len(whole))[0][1] if whole else 0
        assert len(whole) - kept <= limit + segment
        for start in {0, kept, (kept + len(whole)) // 2, len(whole)}:
            offset = max(start, kept)
            while chunks := spool.read(offset, piece):
                assert sum(len(data) for _, _, data in chunks) <= piece
                for stream, at, data in chunks:
                    assert at == offset
                    assert data == whole[at : at + len(data)]
                    assert {stream} == set(streams[at : at + len(data)])
                    offset += len(data)
            assert offset == len(whole)


def test_nothing_is_left_in_the_folder(tmp_path: object) -> None:
    spool = Spool(str(tmp_path))
    spool.write(0, b"data")
    assert os.listdir(str(tmp_path)) == []
    assert spool.read(0, 100) == [(0, 0, b"data")]


def test_a_disk_that_takes_nothing_costs_the_output_and_no_more(tmp_path: object) -> None:
    folder = os.path.join(str(tmp_path), "spool")
    spool = Spool(folder)
    spool.write(0, b"lost")
    os.mkdir(folder)
    spool.write(1, b"kept")
    assert spool.end == 8
    assert spool.read(0, 100) == [(1, 4, b"kept")]


def test_waiting_for_more_and_for_the_end(tmp_path: object) -> None:
    spool = Spool(str(tmp_path))
    assert spool.wait(0, 0.01)  # nothing yet, and it goes on
    threading.Timer(0.05, spool.write, (0, b"x")).start()
    assert spool.wait(0, 10)
    threading.Timer(0.05, spool.finish).start()
    assert not spool.wait(1, 10)
    assert spool.wait(0, 0)  # the end, but not all is read
