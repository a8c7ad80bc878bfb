"""The images that sessions' containers run: built from `runtimes/`, kept by the digest of all that goes into them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from sandbox.engine import labels
from sandbox.engine.docker.build_context import BuildContext, digest_tree, is_source
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
#: A younger image is kept when another replaces it: one more checkout of this project may run on the same engine.
KEPT_SECONDS = 86_400.0
#: A base takes a minute to make anew.
_BASES_KEPT_SECONDS = 7 * KEPT_SECONDS


class BaseKind(StrEnum):
    """Where the image below a runtime's own comes from."""

    REGISTRY = "registry"
    LOCAL = "local"


class RuntimeImages:
    """The image of each runtime, built when it is not there.

    An image is `purple8/{runtime}:{digest}`; the digest covers the runtime's folder, the guest agent, the kind of
    base and this machine's CA certificates, so that a change of any of them builds anew and nothing else does.
    Survives a restart: the engine is asked, nothing is remembered but that no registry answered. Once one is built,
    those of the same runtime that are older than `kept_seconds` and that no container uses are removed.
    """

    def __init__(
        self,
        catalog: RuntimeCatalog,
        docker_host: str | None = None,
        *,
        host: HostPassthrough | None = None,
        guest_folder: Path | None = None,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self._catalog = catalog
        self._kept_seconds = kept_seconds
        self._builder = ImageBuilder(docker_host)
        self._host = host or container_environment()
        self._guest = guest_folder or Path(__file__).resolve().parent.parent / "guest"
        self._locks: dict[str, asyncio.Lock] = {}
        self._registry_is_silent = False
        self._bases = asyncio.Lock()
        #: Bases that a build may be about to use.
        self._built_on: set[str] = set()

    async def reference(self, name: str) -> str | None:
        """The reference of the runtime's image if the engine has it as it should be now; else None.

        Raises RuntimeUnknown, RuntimeInvalid, or EngineError if the engine does not answer.
        """
        return await asyncio.to_thread(self._find, self._catalog.get(name))

    async def ensure(self, name: str, progress: Progress = lambda _: None) -> str:
        """The reference of the runtime's image, built if it is not there; a minute or two the first time.

        `progress` is given lines for people, on the event loop. Two callers at once build once. Raises RuntimeUnknown,
        RuntimeInvalid, BaseUnavailable (`base_image_unavailable`) or ImageBuildFailed (`image_build_failed`).
        """
        runtime = self._catalog.get(name)
        loop = asyncio.get_running_loop()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(progress, line)

        async with self._locks.setdefault(name, asyncio.Lock()):
            found = await asyncio.to_thread(self._find, runtime)
            if found is not None:
                return found
            async with self._bases:
                kind, base = await asyncio.to_thread(self._ensure_base, runtime, say)
                self._built_on.add(base)
            tag = await asyncio.to_thread(self._build, runtime, kind, base, say)
            async with self._bases:
                await asyncio.to_thread(self._remove_old, tag, say)
            return tag

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

    def _ensure_base(self, runtime: Runtime, say: Progress) -> tuple[BaseKind, str]:
        """The base, from a registry if one answers, else made here; with this machine's CA certificates added."""
        image, local = runtime.base.image, runtime.base.local
        if self._from_registry(image, say):
            return BaseKind.REGISTRY, self._with_certificates(image)
        if local is None:
            raise BaseUnavailable(
                f"Runtime {runtime.name} is based on {image}, which no image registry gave",
                hint="Allow the registry, or add [base.local] to its runtime.toml.",
            )
        say(f"No image registry gave {image}: building an equal base on this machine")
        return BaseKind.LOCAL, self._with_certificates(LocalBases(self._builder).ensure(local, say))

    def _from_registry(self, image: str, say: Progress) -> bool:
        if self._builder.has(image):
            return True
        if self._registry_is_silent:
            return False
        say(f"Asking the image registry for {image}")
        pulled = self._builder.pull(image, say)
        self._registry_is_silent = pulled is Pulled.NO_ANSWER
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

    def _build(self, runtime: Runtime, kind: BaseKind, base: str, say: Progress) -> str:
        tag = self._tag(runtime, kind)
        context = BuildContext()
        context.add_tree(".", runtime.folder, is_source)
        context.add_tree("agent", self._guest, is_source)
        say(f"Building {tag}")
        self._builder.build(
            context,
            tag,
            lambda line: say(f"{runtime.name}: {line}"),
            buildargs={**self._host.env, "BASE": base},
            labels={labels.RUNTIME: runtime.name, BASE_LABEL: kind},
        )
        say(f"Built {tag}")
        return tag

    def _remove_old(self, current: str, say: Progress) -> None:
        """Remove what `current` replaces, and bases that nothing stands on any more."""
        try:
            ours = self._builder.tagged(f"{REPOSITORY}/*")
            self._remove(superseded(ours, current, time.time() - self._kept_seconds), say)
            ours = self._builder.tagged(f"{REPOSITORY}/*")
            unused = unused_bases(ours, (BASE_WITH_CA, LOCAL_BASE), time.time() - _BASES_KEPT_SECONDS)
            self._remove([tag for tag in unused if tag not in self._built_on], say)
        except EngineError as error:
            # The image is there, which is what was asked for; the next build tries again.
            say(f"Old images were not removed: {error}")

    def _remove(self, tags: list[str], say: Progress) -> None:
        for tag in tags:
            if self._builder.remove(tag):
                say(f"Removed {tag}, which nothing uses any more")
