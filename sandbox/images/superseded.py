"""Which of our images newer ones have replaced."""

from __future__ import annotations

from collections.abc import Container, Iterable

from sandbox.engine.docker.image_builder import TaggedImage


def superseded(images: Iterable[TaggedImage], current: str, before: float) -> list[str]:
    """The tags of `current`'s repository but itself, made before that time."""
    repository = current.rpartition(":")[0]
    found = [image for image in images if image.repository == repository and image.tag != current]
    return [image.tag for image in found if image.created_at < before]


def without_use(images: Iterable[TaggedImage], bases: Container[str], before: float) -> list[str]:
    """The tags of these repositories on which no image stands, made before that time."""
    known = list(images)
    found = [image for image in known if image.repository in bases and image.created_at < before]
    return [image.tag for image in found if not any(other.stands_on(image) for other in known)]
