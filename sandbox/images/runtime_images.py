"""The images of sessions' containers. They are built from `runtimes/` and tagged with the digest of their sources."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from sandbox.engine import labels
from sandbox.engine.docker.build_context import BuildContext, digest_tree, is_source, stamp_tree
from sandbox.engine.docker.image_builder import ImageBuilder, Pulled
from sandbox.engine.host_environment import CA_BUNDLE_PATH, HostPassthrough, container_environment
from sandbox.engine.runtimes import Runtime, RuntimeCatalog
from sandbox.errors import EngineError
from sandbox.images.superseded import superseded, unused_bases
from sandbox.provision.local_bases import REPOSITORY as LOCAL_BASE
from sandbox.provision.local_bases import BaseUnavailable, LocalBases

Progress = Callable[[str], None]

REPOSITORY = "purple8"
BASE_WITH_CA = f"{REPOSITORY}/base-with-host-ca"
BASE_LABEL = "sandbox.base"
#: A superseded image is removed only if it is older than this, because another checkout of this project may use the
#: same engine.
MIN_AGE_SECONDS = 86_400.0
#: Bases stay longer, because building one takes a minute.
_BASES_MIN_AGE_SECONDS = 7 * MIN_AGE_SECONDS


class BaseKind(StrEnum):
    """Where the base of a runtime's image comes from."""

    REGISTRY = "registry"
    LOCAL = "local"


class RuntimeImages:
    """Finds the image of each runtime on the engine, and builds it if it is missing.

    An image is tagged `purple8/{runtime}:{digest}`. The digest covers the runtime's folder, the guest agent, the kind
    of base and this machine's CA certificates, so a change of any of them leads to a new image, and nothing else does.

    The only state in memory is that no registry answered, and which images were found. After each build, images of the
    same runtime that are older than `min_age_seconds` and that no container uses are removed.
    """

    def __init__(
        self,
        catalog: RuntimeCatalog,
        docker_host: str | None = None,
        *,
        host: HostPassthrough | None = None,
        guest_folder: Path | None = None,
        min_age_seconds: float = MIN_AGE_SECONDS,
    ) -> None:
        self._catalog = catalog
        self._min_age_seconds = min_age_seconds
        self._builder = ImageBuilder(docker_host)
        self._host = host or container_environment()
        self._guest = guest_folder or Path(__file__).resolve().parent.parent / "guest"
        #: For each runtime the state of its sources when its image was found, and the image.
        self._known: dict[str, tuple[object, str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._registry_unreachable = False
        self._bases = asyncio.Lock()
        #: Bases that a build of this process uses or may be about to use.
        self._built_on: set[str] = set()

    async def reference(self, name: str) -> str | None:
        """Return the reference of the runtime's current image, or None if the engine does not have it.

        Raises RuntimeUnknown, RuntimeInvalid, or EngineError if the engine does not answer.
        """
        runtime = self._catalog.get(name)
        return await asyncio.to_thread(self._known_or_found, runtime)

    def forget(self, name: str) -> None:
        """Ask the engine for the runtime's image at the next use, because a container could not be made of it."""
        self._known.pop(name, None)

    async def ensure(self, name: str, progress: Progress = lambda _: None) -> str:
        """Build the runtime's image unless the engine has it, and return its reference.

        The first build takes a minute or two. `progress` is called on the event loop with lines for the user.
        Concurrent calls for one runtime share one build. Raises RuntimeUnknown, RuntimeInvalid, BaseUnavailable
        (`base_image_unavailable`) or ImageBuildFailed (`image_build_failed`).
        """
        runtime = self._catalog.get(name)
        loop = asyncio.get_running_loop()

        def notify(line: str) -> None:
            loop.call_soon_threadsafe(progress, line)

        async with self._locks.setdefault(name, asyncio.Lock()):
            found = await asyncio.to_thread(self._find, runtime)
            if found is not None:
                return found
            async with self._bases:
                kind, base = await asyncio.to_thread(self._ensure_base, runtime, notify)
                self._built_on.add(base)
            tag = await asyncio.to_thread(self._build, runtime, kind, base, notify)
            async with self._bases:
                await asyncio.to_thread(self._remove_old, tag, notify)
            return tag

    def _known_or_found(self, runtime: Runtime) -> str | None:
        """The image that was found for the same sources, else the one that the engine has."""
        sources = (stamp_tree(runtime.folder), stamp_tree(self._guest))
        known = self._known.get(runtime.name)
        if known is not None and known[0] == sources:
            return known[1]
        found = self._find(runtime)
        if found is not None:
            self._known[runtime.name] = (sources, found)
        return found

    def _find(self, runtime: Runtime) -> str | None:
        for kind in BaseKind:
            tag = self._tag(runtime, kind)
            if self._builder.has(tag):
                return tag
        return None

    def _tag(self, runtime: Runtime, kind: BaseKind) -> str:
        parts = (digest_tree(runtime.folder), digest_tree(self._guest), kind, self._ca_digest())
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        return f"{REPOSITORY}/{runtime.name}:{digest}"

    def _ca_digest(self) -> str:
        return hashlib.sha256(self._host.ca_bundle or b"").hexdigest()

    def _ensure_base(self, runtime: Runtime, notify: Progress) -> tuple[BaseKind, str]:
        """Return the base with this machine's CA certificates: from a registry if one answers, else built here."""
        image, local = runtime.base.image, runtime.base.local
        if self._from_registry(image, notify):
            return BaseKind.REGISTRY, self._with_certificates(image)
        if local is None:
            raise BaseUnavailable(
                f"Runtime {runtime.name} is based on {image}, which no image registry provides",
                hint="Allow the registry, or add [base.local] to its runtime.toml.",
            )
        notify(f"No image registry provides {image}: building an equivalent base on this machine")
        return BaseKind.LOCAL, self._with_certificates(LocalBases(self._builder).ensure(local, notify))

    def _from_registry(self, image: str, notify: Progress) -> bool:
        if self._builder.has(image):
            return True
        if self._registry_unreachable:
            return False
        notify(f"Asking the image registry for {image}")
        pulled = self._builder.pull(image, notify)
        self._registry_unreachable = pulled is Pulled.NO_ANSWER
        return pulled is Pulled.YES

    def _with_certificates(self, base: str) -> str:
        if self._host.ca_bundle is None:
            return base
        digest = hashlib.sha256(f"{base}\n{self._ca_digest()}".encode()).hexdigest()[:12]
        tag = f"{BASE_WITH_CA}:{digest}"
        if not self._builder.has(tag):
            context = BuildContext()
            context.add_bytes("host.crt", self._host.ca_bundle)
            context.add_bytes("Dockerfile", f"FROM {base}\nCOPY host.crt {CA_BUNDLE_PATH}\n".encode())
            self._builder.build(context, tag, lambda _: None)
        return tag

    def _build(self, runtime: Runtime, kind: BaseKind, base: str, notify: Progress) -> str:
        tag = self._tag(runtime, kind)
        context = BuildContext()
        context.add_tree(".", runtime.folder, is_source)
        context.add_tree("agent", self._guest, is_source)
        notify(f"Building {tag}")
        self._builder.build(
            context,
            tag,
            lambda line: notify(f"{runtime.name}: {line}"),
            buildargs={**self._host.env, "BASE": base},
            labels={labels.RUNTIME: runtime.name, BASE_LABEL: kind},
        )
        notify(f"Built {tag}")
        return tag

    def _remove_old(self, current: str, notify: Progress) -> None:
        """Remove images that `current` supersedes, and bases of which no image is left."""
        try:
            ours = self._builder.tagged(f"{REPOSITORY}/*")
            self._remove(superseded(ours, current, time.time() - self._min_age_seconds), notify)
            ours = self._builder.tagged(f"{REPOSITORY}/*")
            unused = unused_bases(ours, (BASE_WITH_CA, LOCAL_BASE), time.time() - _BASES_MIN_AGE_SECONDS)
            self._remove([tag for tag in unused if tag not in self._built_on], notify)
        except EngineError as error:
            # The requested image exists, so this is no failure. The next build tries to remove them again.
            notify(f"Old images were not removed: {error}")

    def _remove(self, tags: list[str], notify: Progress) -> None:
        for tag in tags:
            if self._builder.remove(tag):
                notify(f"Removed {tag}, which is no longer used")
