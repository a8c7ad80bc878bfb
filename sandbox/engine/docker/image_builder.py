"""The few things that making images asks of the container engine. Every call blocks: run it in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.utils

from sandbox.engine.docker.build_context import BuildContext
from sandbox.engine.docker.calls import unreachable
from sandbox.engine.docker.connection import FOREIGN_ERRORS, connected
from sandbox.errors import EngineError

#: A registry that says nothing for this long is taken for absent.
REGISTRY_DEADLINE_SECONDS = 5
#: A step of a build that prints nothing for this long has hung.
_SILENCE_SECONDS = 900
_LINES_OF_A_FAILURE = 30
#: What the engine answers for a registry's own no; for one that is not reached it is 500.
_REGISTRY_REFUSES = (401, 403, 404)
_BUILD_HINT = "The lines above name the step that failed; package indexes must be reachable from containers."


class ImageBuildFailed(EngineError):
    """The engine could not build an image; the message has the end of what the build printed."""

    code = "image_build_failed"


class Pulled(StrEnum):
    """How asking a registry for an image went."""

    YES = "yes"
    UNKNOWN_IMAGE = "unknown image"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class TaggedImage:
    """One tag of ours. `layers` are the digests of its file system, the lowest first."""

    tag: str
    #: Unix time.
    created_at: float
    layers: tuple[str, ...]

    @property
    def repository(self) -> str:
        return self.tag.rpartition(":")[0]

    def stands_on(self, other: TaggedImage) -> bool:
        """Whether it was built on the other."""
        return len(other.layers) < len(self.layers) and self.layers[: len(other.layers)] == other.layers


class ImageBuilder:
    """Pulls, builds and looks up images on one engine. `docker_host` None is the local socket."""

    def __init__(self, docker_host: str | None = None) -> None:
        self._docker_host = docker_host

    def has(self, reference: str) -> bool:
        """Whether the engine has this image. Raises EngineError if it does not answer."""
        with self._client() as client:
            try:
                client.inspect_image(reference)
            except docker.errors.ImageNotFound:
                return False
            except FOREIGN_ERRORS as error:
                raise unreachable(str(error)) from error
            return True

    def pull(self, reference: str, progress: Callable[[str], None]) -> Pulled:
        """Pull an image. Gives up within seconds if no registry answers at all."""
        if (answer := self._registry_has(reference)) is not Pulled.YES:
            return answer
        repository, tag = _split(reference)
        progress(f"Pulling {reference}")
        with self._client() as client:
            try:
                events = list(client.pull(repository, tag=tag, stream=True, decode=True))
                failure = next((event["error"] for event in events if "error" in event), None)
            except FOREIGN_ERRORS as error:
                failure = error
        if failure is not None:
            progress(f"Pulling {reference} failed: {failure}")
            return Pulled.NO_ANSWER
        return Pulled.YES

    def _registry_has(self, reference: str) -> Pulled:
        """Whether the registry says that it has the image."""
        with self._client(REGISTRY_DEADLINE_SECONDS) as client:
            try:
                client.inspect_distribution(reference)
            except docker.errors.APIError as error:
                answered = error.status_code in _REGISTRY_REFUSES
                return Pulled.UNKNOWN_IMAGE if answered else Pulled.NO_ANSWER
            except FOREIGN_ERRORS:
                return Pulled.NO_ANSWER
        return Pulled.YES

    def build(
        self,
        context: BuildContext,
        tag: str,
        progress: Callable[[str], None],
        *,
        buildargs: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Build and tag an image. Each step is told to `progress`. Raises ImageBuildFailed."""
        with context.finish() as archive, self._client() as client:
            try:
                events = client.build(
                    fileobj=archive,
                    custom_context=True,
                    tag=tag,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    buildargs=dict(buildargs or {}),
                    labels=dict(labels or {}),
                )
                _follow(events, tag, progress)
            except FOREIGN_ERRORS as error:
                raise ImageBuildFailed(f"Building {tag} failed: {error}", hint=_BUILD_HINT) from error

    def import_archive(self, archive: Path, reference: str) -> None:
        """Make an image of a root file system in a tar."""
        repository, tag = _split(reference)
        with self._client() as client:
            try:
                client.import_image_from_file(str(archive), repository=repository, tag=tag, changes=['CMD ["bash"]'])
            except FOREIGN_ERRORS as error:
                raise ImageBuildFailed(f"Importing {reference} failed: {error}", hint=_BUILD_HINT) from error

    def tagged(self, pattern: str) -> list[TaggedImage]:
        """The engine's images whose tags fit the pattern, such as `purple8/*`. Raises EngineError."""
        with self._client() as client:
            try:
                found = client.images(filters={"reference": pattern})
                layers = {each["Id"]: client.inspect_image(each["Id"])["RootFS"].get("Layers") or () for each in found}
            except FOREIGN_ERRORS as error:
                raise unreachable(str(error)) from error
        return [
            TaggedImage(tag, float(each["Created"]), tuple(layers[each["Id"]]))
            for each in found
            for tag in each["RepoTags"] or ()
        ]

    def remove(self, tag: str) -> bool:
        """Remove a tag, and what of its image nothing else needs. False if it is gone, or a container uses it.

        Raises EngineError if the engine does not answer.
        """
        with self._client() as client:
            try:
                client.remove_image(tag)
            except docker.errors.APIError as error:
                if error.status_code in (404, 409):
                    return False
                raise unreachable(str(error)) from error
            except FOREIGN_ERRORS as error:
                raise unreachable(str(error)) from error
            return True

    def _client(self, timeout_seconds: float = _SILENCE_SECONDS) -> AbstractContextManager[docker.APIClient]:
        return connected(self._docker_host, timeout_seconds=timeout_seconds)


def _split(reference: str) -> tuple[str, str]:
    repository, tag = docker.utils.parse_repository_tag(reference)
    return repository, tag or "latest"


def _follow(events: Iterator[dict[str, Any]], tag: str, progress: Callable[[str], None]) -> None:
    """Tell the steps of a build as they begin. Raises ImageBuildFailed with the last lines if it fails."""
    last: deque[str] = deque(maxlen=_LINES_OF_A_FAILURE)
    error = None
    # Read to its end even after an error, which is near: a connection left in the middle would stay open.
    for event in events:
        for line in str(event.get("stream", "")).splitlines():
            if line.strip():
                last.append(line.rstrip())
            if line.startswith("Step "):
                progress(line.strip())
        error = event.get("error", error)
    if error is not None:
        printed = "\n".join(last)
        raise ImageBuildFailed(f"Building {tag} failed: {error}\n{printed}", hint=_BUILD_HINT)
