"""Types and helpers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import docker
from docker.errors import ImageNotFound

#: `run(image, shell command)` returns the output.
Run = Callable[..., str]


def image_exists(engine: docker.DockerClient, reference: str) -> bool:
    try:
        engine.images.get(reference)
    except ImageNotFound:
        return False
    return True
