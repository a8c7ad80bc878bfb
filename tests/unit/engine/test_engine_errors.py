"""Errors of the Docker SDK, translated."""

from __future__ import annotations

import docker.errors
import pytest
import requests

from sandbox.engine.docker.errors import translate


def refusal(status: int, explanation: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("refused", response=response, explanation=explanation)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refusal(500, "mkdir /var/lib/docker/overlay2/1: no space left on device"), "disk_full"),
        (refusal(500, "write /data: Disk quota exceeded"), "disk_full"),
        (refusal(500, "something else"), "engine_error"),
        (refusal(409, "the name is in use"), "engine_conflict"),
        (requests.exceptions.ReadTimeout("slow"), "engine_timeout"),
        (ConnectionRefusedError("refused"), "engine_unreachable"),
    ],
)
def test_each_error_has_its_code(error: Exception, code: str) -> None:
    assert translate(error).code == code
