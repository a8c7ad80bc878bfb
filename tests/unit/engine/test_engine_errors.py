"""Errors of the Docker SDK, translated."""

from __future__ import annotations

import docker.errors
import pytest
import requests

from sandbox.engine.docker.errors import is_left_behind, translate


def refusal(status: int, explanation: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("refused", response=response, explanation=explanation)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refusal(500, "mkdir /var/lib/docker/overlay2/1: no space left on device"), "disk_full"),
        (refusal(500, "write /data: Disk quota exceeded"), "disk_full"),
        (refusal(500, "--storage-opt is supported only for overlay over xfs with 'pquota'"), "disk_limit_unavailable"),
        (refusal(500, "quota size requested but no quota support"), "disk_limit_unavailable"),
        (refusal(500, "something else"), "engine_error"),
        (refusal(409, "the name is in use"), "engine_conflict"),
        (requests.exceptions.ReadTimeout("slow"), "engine_timeout"),
        (ConnectionRefusedError("refused"), "engine_unreachable"),
    ],
)
def test_each_error_has_its_code(error: Exception, code: str) -> None:
    assert translate(error).code == code


@pytest.mark.parametrize(
    ("explanation", "expected"),
    [
        ("task 5f0c0ffee already exists: unknown", True),
        ("task 5f0c0ffee: already exists", True),
        ("id already in use", True),
        ("OCI runtime create failed: container with id exists: 5f0c0ffee: unknown", True),
        ("failed to create shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/5f0c: file exists", True),
        ("network sbx-1 not found", False),
        ("OCI runtime create failed: exec: no such file or directory", False),
    ],
)
def test_what_an_interrupted_start_has_left_behind_is_recognised(explanation: str, expected: bool) -> None:
    assert is_left_behind(translate(refusal(500, explanation))) is expected
