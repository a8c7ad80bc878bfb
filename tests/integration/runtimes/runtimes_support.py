"""What the tests of this folder share beside fixtures."""

from __future__ import annotations

from collections.abc import Callable

import docker
from docker.errors import ImageNotFound

#: `run(image, shell command)`: what it printed.
Run = Callable[..., str]


def image_exists(engine: docker.DockerClient, reference: str) -> bool:
    try:
        engine.images.get(reference)
    except ImageNotFound:
        return False
    return True
