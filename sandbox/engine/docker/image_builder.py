"""Pulls, builds and removes images on the container engine. Every call blocks: run it in a thread."""

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
from sandbox.engine.docker.connection import connected
from sandbox.engine.docker.errors import FOREIGN_ERRORS, unreachable
from sandbox.errors import EngineError

#: A registry that sends nothing for this long counts as unreachable.
REGISTRY_DEADLINE_SECONDS = 5
#: A build that prints nothing for this long has hung.
_SILENCE_SECONDS = 900
_FAILURE_LINES = 30
#: Statuses with which the engine passes on a refusal by the registry. If it cannot reach the registry it answers 500.
_REGISTRY_REFUSALS = (401, 403, 404)
_BUILD_HINT = "The lines above name the step that failed; package indexes must be reachable from containers."


class ImageBuildFailed(EngineError):
    """The engine could not build an image. The message contains the last lines that the build printed."""

    code = "image_build_failed"


class Pulled(StrEnum):
    """The outcome of a pull."""

    YES = "yes"
    UNKNOWN_IMAGE = "unknown image"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class TaggedImage:
    """A tagged image of this service. `layers` are the digests of its file system's layers, the lowest first."""

    tag: str
    #: Unix time.
    created_at: float
    layers: tuple[str, ...]

    @property
    def repository(self) -> str:
        return self.tag.rpartition(":")[0]

    def is_based_on(self, other: TaggedImage) -> bool:
        """Return whether the image was built from the other one."""
        return len(other.layers) < len(self.layers) and self.layers[: len(other.layers)] == other.layers


class ImageBuilder:
    """Pulls, builds, finds and removes images on one engine. `docker_host` None is the local socket."""

    def __init__(self, docker_host: str | None = None) -> None:
        self._docker_host = docker_host

    def has(self, reference: str) -> bool:
        """Return whether the engine has this image. Raises EngineError if the engine does not answer."""
        with self._client() as client:
            try:
                client.inspect_image(reference)
            except docker.errors.ImageNotFound:
                return False
            except FOREIGN_ERRORS as error:
                raise unreachable(str(error)) from error
            return True

    def pull(self, reference: str, progress: Callable[[str], None]) -> Pulled:
        """Pull an image and return the outcome. Gives up within seconds if no registry answers."""
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
        """Ask the registry whether it has the image, without pulling it."""
        with self._client(REGISTRY_DEADLINE_SECONDS) as client:
            try:
                client.inspect_distribution(reference)
            except docker.errors.APIError as error:
                refused = error.status_code in _REGISTRY_REFUSALS
                return Pulled.UNKNOWN_IMAGE if refused else Pulled.NO_ANSWER
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
        """Build and tag an image. Calls `progress` with the title of each step. Raises ImageBuildFailed."""
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
        """Create an image from the tar of a root file system. Raises ImageBuildFailed."""
        repository, tag = _split(reference)
        with self._client() as client:
            try:
                client.import_image_from_file(str(archive), repository=repository, tag=tag, changes=['CMD ["bash"]'])
            except FOREIGN_ERRORS as error:
                raise ImageBuildFailed(f"Importing {reference} failed: {error}", hint=_BUILD_HINT) from error

    def tagged(self, pattern: str) -> list[TaggedImage]:
        """Return the engine's images whose tags match the pattern, such as `purple8/*`. Raises EngineError."""
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
        """Remove a tag, and the layers that no other image needs. Return False if it is gone or a container uses it.

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
    """Report the steps of a build as they begin. Raises ImageBuildFailed, with the last lines printed, if it fails."""
    last: deque[str] = deque(maxlen=_FAILURE_LINES)
    error = None
    # The stream ends soon after an error and is read to its end, because otherwise the connection would stay open.
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
