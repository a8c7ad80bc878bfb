"""Selects the images that are no longer needed."""

from __future__ import annotations

from collections.abc import Container, Iterable

from sandbox.engine.docker.image_builder import TaggedImage


def superseded(images: Iterable[TaggedImage], current: str, before: float) -> list[str]:
    """Return the other tags of `current`'s repository whose images were created before that Unix time."""
    repository = current.rpartition(":")[0]
    others = [image for image in images if image.repository == repository and image.tag != current]
    return [image.tag for image in others if image.created_at < before]


def unused_bases(images: Iterable[TaggedImage], repositories: Container[str], before: float) -> list[str]:
    """Return the tags of these repositories on which no image is based, created before that Unix time."""
    known = list(images)
    bases = [image for image in known if image.repository in repositories and image.created_at < before]
    return [base.tag for base in bases if not any(image.is_based_on(base) for image in known)]
