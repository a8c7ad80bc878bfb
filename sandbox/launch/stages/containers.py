"""Stage `containers`: for each role a container, its `/workspace` volume and a guest agent that answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from sandbox.concurrency import for_each
from sandbox.crashpoints import crash_point
from sandbox.domain.egress import PUBLIC
from sandbox.domain.plan import LaunchPlan
from sandbox.domain.processes import ProcessKind
from sandbox.domain.session import ContainerInfo
from sandbox.domain.stages import StageName
from sandbox.engine.base import ContainerSpec, ContainerState, Limits, Resource, ResourceKind
from sandbox.engine.labels import container_name, network_name
from sandbox.errors import EngineError, GuestError, SandboxError, StageFailed
from sandbox.launch.environment import PreviewUrl, preview_environment
from sandbox.launch.losses import KILLED, ContainersLost, Loss, find_loss
from sandbox.launch.otel_environment import otel_environment
from sandbox.launch.stage import RoleContainer, StageContext, StageResult
from sandbox.telemetry.metrics.collectors import observe_claim

log = logging.getLogger(__name__)

MIB = 1024 * 1024
#: How often, and each time for how long, a guest agent is waited for after its container has started. In between the
#: container is inspected, because it may have ended.
GUEST_ATTEMPTS = 10
GUEST_SECONDS = 4.0
#: How long the command may take that shows that commands can run.
COMMAND_SECONDS = 30.0
#: Exit codes of a container that was ended from outside: after SIGTERM the guest agent exits with 0.
FROM_OUTSIDE = frozenset({0, KILLED, 143})
#: Errors of an engine that does not answer, which says nothing of the image that was to be built.
ENGINE_SILENT = frozenset({"engine_unreachable", "engine_timeout"})


class Images(Protocol):
    """The images of runtimes (`images/runtime_images.py`)."""

    async def reference(self, name: str) -> str | None: ...
    async def ensure(self, name: str, progress: Callable[[str], None]) -> str: ...
    def forget(self, name: str) -> None: ...


async def _begin_anew(context: StageContext, role: str) -> None:
    """End what earlier runs have left running in the container, and see that a command can run in it.

    A sandbox that has used up its processes can start no command until they end. Nothing is done once this run has
    started a process there: its containers are ensured again when another one was lost.
    """
    guest = context.engine.guest(context.session.session_id, role)
    for kind in ProcessKind:
        if await guest.process(context.process_name(kind)) is not None:
            return
    if killed := await guest.kill_all():
        await context.journal.log_line(f"ended {killed} processes of before", role=role)
    await guest.exec(["true"], timeout_seconds=COMMAND_SECONDS)


class ContainersStage:
    name = StageName.CONTAINERS

    def __init__(
        self,
        images: Images,
        limits: Limits,
        exports_token: Callable[[UUID, str], str],
        preview_url: PreviewUrl,
        *,
        pool: bool,
    ) -> None:
        """`exports_token(session_id, user_id)` signs the token with which the session's apps send OTLP exports; `pool`
        is whether there are containers that were made ahead of time."""
        self._preview_url = preview_url
        self._pool = pool
        self._images = images
        self._limits = limits
        self._exports_token = exports_token

    async def run(self, context: StageContext) -> StageResult:
        plan = context.plan
        specs = await for_each(plan.roles, lambda role: self._spec(context, role))
        fingerprints = await self._fingerprints(context, specs)
        found = await context.journal.record_containers(fingerprints)
        self._count(plan, fingerprints, found)
        crash_point("containers:claimed")

        async def launch(role: str) -> ContainerInfo:
            spec = replace(specs[role], member=found[role].member)
            state = await self._ensure(context, spec)
            await self._await_guest(context, role)
            if spec.member is not None:
                await context.engine.guest(spec.session_id, role).set_variables(spec.env)
            if spec.member is None or found[role].had_one:
                await _begin_anew(context, role)
            return ContainerInfo(state.id, state.ip, spec.runtime, state.status)

        return StageResult(containers=await for_each(plan.roles, launch))

    def _limits_of(self, context: StageContext) -> Limits:
        memory = context.session.memory_mb
        return self._limits if memory is None else replace(self._limits, memory_bytes=memory * MIB)

    async def _spec(self, context: StageContext, role: str) -> ContainerSpec:
        session, plan = context.session, context.plan
        runtime = plan.roles[role].runtime
        image = await self._image(context, role, runtime)
        env = otel_environment(session, plan, role, self._exports_token(session.session_id, session.user_id))
        env |= preview_environment(session, plan, role, self._preview_url)
        network = network_name(session.session_id) if plan.has_own_network(session.egress) else None
        return ContainerSpec(session.session_id, role, image, runtime, network, self._limits_of(context), env)

    async def _fingerprints(
        self, context: StageContext, specs: Mapping[str, ContainerSpec]
    ) -> Mapping[str, str | None]:
        """What a container of the pool must be like for each role; None if the role can have none.

        A network that restricts its containers needs lines in their `/etc/hosts`, which are set when they are created.
        """
        if not self._pool or context.plan.reach(context.session.egress) != PUBLIC:
            return dict.fromkeys(specs)

        async def fingerprint(role: str) -> str:
            return await context.engine.fingerprint(replace(specs[role], network=None))

        return await for_each(specs, fingerprint)

    def _count(
        self, plan: LaunchPlan, fingerprints: Mapping[str, str | None], found: Mapping[str, RoleContainer]
    ) -> None:
        for role, container in found.items():
            if not container.had_one:
                reason = ("empty" if fingerprints[role] else "egress") if self._pool else "off"
                observe_claim(plan.roles[role].runtime, None if container.member else reason)

    async def _image(self, context: StageContext, role: str, runtime: str) -> str:
        """The runtime's image; built now if there is none yet, with a line in the launch's log."""
        image = await self._images.reference(runtime)
        if image is not None:
            return image
        await context.journal.log_line(
            f"building the image of {runtime}; this takes a minute or two, and only once", role=role
        )
        try:
            return await self._images.ensure(runtime, lambda line: log.info("%s", line))
        except SandboxError as error:
            if error.code in ENGINE_SILENT:
                raise
            hint = error.hint or f"Build it by hand: sandbox runtimes build {runtime}"
            raise StageFailed("image_missing", f"there is no image for {runtime}: {error}", hint) from error

    async def _ensure(self, context: StageContext, spec: ContainerSpec) -> ContainerState:
        """The role's container; one of another image, network or memory is replaced by a new one on the same volume."""
        try:
            return await context.engine.ensure_container(spec)
        except EngineError as error:
            if error.code == "image_missing":
                self._images.forget(spec.runtime)  # The next attempt builds it.
            if error.code != "container_mismatch":
                raise
        name = container_name(spec.session_id, spec.role)
        await context.journal.log_line(
            "the runtime, the network or the memory has changed: the container is replaced, its volume is kept",
            role=spec.role,
        )
        await context.engine.remove(Resource(ResourceKind.CONTAINER, name, spec.session_id, spec.role, None))
        return await context.engine.ensure_container(spec)

    async def _await_guest(self, context: StageContext, role: str) -> None:
        """Return once the guest agent of the role's container answers.

        Raises ContainersLost if the container was ended or removed from outside, or if its guest agent stays silent:
        the container is then made again on its volume. Raises StageFailed if it cannot run at all.
        """
        session_id = context.session.session_id
        for attempt in range(1, GUEST_ATTEMPTS + 1):
            try:
                await context.engine.guest(session_id, role).wait_ready(GUEST_SECONDS)
            except GuestError as error:
                if error.code != "agent_unreachable":
                    raise
                state = await context.engine.inspect_container(session_id, role)
                loss = find_loss({role: state})
                if loss is None and attempt == GUEST_ATTEMPTS:
                    loss = await self._remove_silent(context, role, error)
                if loss is not None:
                    raise await self._ended(context, role, state, loss) from error
            else:
                return

    async def _remove_silent(self, context: StageContext, role: str, error: GuestError) -> Loss:
        """Remove a container whose guest agent does not answer. Its files are on the volume."""
        session_id = context.session.session_id
        name = container_name(session_id, role)
        await context.engine.remove(Resource(ResourceKind.CONTAINER, name, session_id, role, None))
        return Loss(error.code, f"the guest agent of role {role} does not answer", (role,), (role,), gone=True)

    async def _ended(self, context: StageContext, role: str, state: ContainerState | None, loss: Loss) -> SandboxError:
        """The error for a container that has ended or is gone."""
        if state is None or state.exit_code is None or state.exit_code in FROM_OUTSIDE:
            return ContainersLost(loss)
        printed = await context.engine.container_logs(context.session.session_id, role, tail=20)
        return StageFailed(
            "container_start_failed",
            f"the container of role {role} ended at once (exit code {state.exit_code}): {printed.strip()[-500:]}",
            "Look at the engine's log, or rebuild the runtime: sandbox runtimes build",
        )
