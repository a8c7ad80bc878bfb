"""Selection of superseded images and of unused bases."""

from __future__ import annotations

from sandbox.engine.docker.image_builder import TaggedImage
from sandbox.images.superseded import superseded, unused_bases

DEBIAN = ("debian",)
PYTHON = (*DEBIAN, "python")
BASES = ("ours/base", "ours/base-with-ca")


def image(tag: str, created_at: float, *layers: str) -> TaggedImage:
    return TaggedImage(tag, created_at, layers)


def test_older_images_of_the_same_runtime_are_superseded() -> None:
    images = [
        image("ours/python:now", 10, *PYTHON, "new"),
        image("ours/python:old", 10, *PYTHON, "old"),
        image("ours/python:young", 30, *PYTHON, "young"),
        image("ours/python-slim:old", 10, *PYTHON, "slim"),
        image("ours/base:old", 10, *DEBIAN),
    ]
    assert superseded(images, "ours/python:now", before=20) == ["ours/python:old"]
    assert superseded(images, "ours/node:now", before=20) == []


def test_a_base_is_unused_only_if_no_image_is_based_on_it() -> None:
    images = [
        image("ours/base:debian", 10, *DEBIAN),
        image("ours/base:python", 10, *PYTHON),
        image("ours/base-with-ca:python", 10, *PYTHON, "ca"),
        image("ours/base:node", 10, *DEBIAN, "node"),
        image("ours/base:young", 30, "other"),
        image("ours/python:now", 30, *PYTHON, "ca", "agent"),
    ]
    assert unused_bases(images, BASES, before=20) == ["ours/base:node"]
    gone = [each for each in images if each.tag != "ours/python:now"]
    assert unused_bases(gone, BASES, before=20) == ["ours/base-with-ca:python", "ours/base:node"]
