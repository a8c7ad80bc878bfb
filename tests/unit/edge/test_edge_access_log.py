"""Reading the edge's access log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sandbox.edge.access_log import AccessLogReader, PreviewRequest
from sandbox.edge.folder import ACCESS_LOG
from sandbox.telemetry.metrics import collectors
from sandbox.telemetry.metrics.collectors import PREVIEWS, observe_previews

SESSION = uuid4()


def line(**changes: Any) -> str:
    asked = f"{changes.pop('session', SESSION)} GET {changes.pop('path', '/')}"
    return json.dumps({"asked": asked, "status": 200, "duration": 0.25, "size": 3} | changes) + "\n"


def add(folder: Path, text: str) -> None:
    with (folder / ACCESS_LOG).open("a") as file:
        file.write(text)


def test_each_request_is_read_once(tmp_path: Path) -> None:
    reader = AccessLogReader(tmp_path)
    reader.resume()
    assert reader.read() == []
    add(tmp_path, line() + line(status=404, path="/x")[:20])
    assert reader.read() == [PreviewRequest(SESSION, "GET", "/", 200, 0.25)]
    add(tmp_path, line(status=404, path="/x")[20:])
    assert [(each.path, each.status) for each in reader.read()] == [("/x", 404)]
    assert reader.read() == []
    reader.close()


def test_what_was_there_before_is_passed_over(tmp_path: Path) -> None:
    add(tmp_path, line())
    reader = AccessLogReader(tmp_path)
    reader.resume()
    add(tmp_path, line(status=500))
    assert [each.status for each in reader.read()] == [500]
    reader.close()


def test_a_file_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    reader = AccessLogReader(tmp_path)
    add(tmp_path, line(status=200))
    assert len(reader.read()) == 1
    add(tmp_path, line(status=201))
    (tmp_path / ACCESS_LOG).rename(tmp_path / "access-old.log")
    add(tmp_path, line(status=202))
    assert [each.status for each in reader.read()] == [201, 202]
    reader.close()


def read_by_the_next(folder: Path) -> list[int]:
    """The statuses that a reader of the next run of the service finds."""
    reader = AccessLogReader(folder)
    reader.resume()
    found = [each.status for each in [*reader.read(), *reader.read()]]
    reader.save()
    reader.close()
    return found


def test_what_is_logged_while_nobody_reads_is_read_later_and_once(tmp_path: Path) -> None:
    assert read_by_the_next(tmp_path) == []
    add(tmp_path, line(status=200))
    assert read_by_the_next(tmp_path) == [200]
    add(tmp_path, line(status=201) + line(status=202)[:20])
    assert read_by_the_next(tmp_path) == [201]
    add(tmp_path, line(status=202)[20:])
    (tmp_path / ACCESS_LOG).rename(tmp_path / "access-1.log")
    add(tmp_path, line(status=203))
    assert read_by_the_next(tmp_path) == [202, 203]
    assert read_by_the_next(tmp_path) == []


def test_a_log_that_was_replaced_twice_meanwhile_is_read_as_far_as_it_is_there(tmp_path: Path) -> None:
    add(tmp_path, line(status=200))
    assert read_by_the_next(tmp_path) == []
    (tmp_path / ACCESS_LOG).rename(tmp_path / "access-1.log")
    add(tmp_path, line(status=201))
    (tmp_path / ACCESS_LOG).rename(tmp_path / "access-2.log")
    add(tmp_path, line(status=202))
    (tmp_path / "access-1.log").unlink()
    assert read_by_the_next(tmp_path) == [201, 202]


@pytest.mark.parametrize("text", ["\n", "{}\n", "[]\n", "null\n", "\xff\n", line(session="x"), line(status=None)])
def test_other_lines_are_left_out(tmp_path: Path, text: str) -> None:
    reader = AccessLogReader(tmp_path)
    add(tmp_path, text + line())
    assert len(reader.read()) == 1
    reader.close()


def test_the_sessions_with_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "PREVIEW_SESSIONS", 2)
    for session, code in [("a", "200"), ("a", "404"), ("b", "200"), ("a", "200"), ("c", "200")]:
        observe_previews({(session, code): 2})
    series = {sample.labels["session"] for family in PREVIEWS.collect() for sample in family.samples}
    assert {"a", "c"} <= series
    assert "b" not in series
