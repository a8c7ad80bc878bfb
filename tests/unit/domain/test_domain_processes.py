"""Names of a run's processes: containers made by earlier releases have processes under these names."""

from __future__ import annotations

from uuid import UUID

from sandbox.domain.processes import ProcessKind, is_app, process_name

RUN = UUID("5f0c3b0a-1111-2222-3333-444455556666")


def test_a_name_contains_the_kind_and_the_run() -> None:
    assert process_name(ProcessKind.APP, RUN) == "app-5f0c3b0a1111"
    assert process_name(ProcessKind.INSTALL, RUN) == "install-5f0c3b0a1111"


def test_apps_are_recognised_by_name() -> None:
    assert is_app("app-5f0c3b0a1111")
    assert not is_app("install-5f0c3b0a1111")
    assert not is_app("application")
