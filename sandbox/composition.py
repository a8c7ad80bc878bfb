"""The composition root: builds every object once and passes it to those that need it. Nothing is built at import.

`running` starts the parts of the service (database, recorder, event broker, reconciler, …) and closes them in reverse
order; sandboxes keep running. Another replica is the same call in another process.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from sandbox.access.audit import AuditLog
from sandbox.access.first_admin import ensure_admin
from sandbox.access.signing import Signer
from sandbox.access.tokens import TokenService
from sandbox.api.http.live import OpenConnections
from sandbox.api.http.services import Services
from sandbox.concurrency import close_at_end, started
from sandbox.db.connection import Database
from sandbox.db.deployment import load_deployment
from sandbox.db.liveness import Liveness
from sandbox.db.server import DatabaseServer
from sandbox.edge.folder import EdgeFolder
from sandbox.edge.grants import Grants
from sandbox.edge.requests import PreviewRequests
from sandbox.edge.store import GrantStore
from sandbox.edge.visitor import Visitor
from sandbox.engine.base import Limits
from sandbox.engine.docker.connection import data_folder
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.host_environment import container_environment
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.events.broker import EventBroker
from sandbox.images.runtime_images import RuntimeImages
from sandbox.installs.archives import KeptInstalls
from sandbox.knowledge.documents import formats, reading
from sandbox.knowledge.documents.embeddings import EmbeddingModel
from sandbox.knowledge.documents.reading import DocumentReader
from sandbox.knowledge.documents.search import DocumentSearch
from sandbox.knowledge.memory.service import MemoryService
from sandbox.launch.causes import reading as cause_reading
from sandbox.launch.causes.finding import Causes
from sandbox.launch.door import PreviewDoor
from sandbox.launch.kept_installs import InstallKeeper
from sandbox.launch.pipeline import Pipeline
from sandbox.launch.slots import LaunchSlots, WithoutSlot
from sandbox.launch.stage import Stage
from sandbox.launch.stages.containers import ContainersStage
from sandbox.launch.stages.dependencies import DependenciesStage
from sandbox.launch.stages.health import HealthStage
from sandbox.launch.stages.network import NetworkStage
from sandbox.launch.stages.plan import PlanStage
from sandbox.launch.stages.preview import PreviewStage
from sandbox.launch.stages.services import ServicesStage
from sandbox.launch.stages.workspace import WorkspaceStage
from sandbox.learning.launches.outcomes import Outcomes
from sandbox.learning.launches.plans import LaunchLessons, LessonOptions
from sandbox.learning.refinement.schedule import RefinementSchedule
from sandbox.learning.refinement.service import Refiner
from sandbox.learning.refinement.wording import Wording
from sandbox.pool.keeper import PoolKeeper, PoolSize
from sandbox.preview.app import PreviewApp
from sandbox.preview.resolver import SessionResolver, TokenAuthenticator
from sandbox.projects import preparing
from sandbox.projects.service import ProjectService
from sandbox.records.alerts.store import Alerts
from sandbox.records.disk_space import DiskSpace
from sandbox.records.log_tail import LogTail
from sandbox.records.maintenance import Maintenance
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.receiver import Receiver
from sandbox.records.reports import coverage, junit, upload
from sandbox.records.reports.reading import ReportReader
from sandbox.records.space import RecordSpace
from sandbox.secrets.deployment import adopt_keys
from sandbox.secrets.environments import Environments
from sandbox.secrets.keys import load_keys
from sandbox.secrets.service import SecretService
from sandbox.sessions.exports.collector import Collector
from sandbox.sessions.exports.service import ExportService
from sandbox.sessions.feed import SessionFeed
from sandbox.sessions.housekeeping.housekeeper import Housekeeper
from sandbox.sessions.limits import SessionLimits
from sandbox.sessions.reconciler import Reconciler
from sandbox.sessions.recovery.automatic import AutomaticRecovery
from sandbox.sessions.recovery.service import RecoveryService
from sandbox.sessions.replica import Replica
from sandbox.sessions.run_origin import new_origin
from sandbox.sessions.service import SessionService
from sandbox.sessions.watcher import Watcher
from sandbox.settings import Settings
from sandbox.telemetry.logging import configure_logging
from sandbox.telemetry.metrics.collectors import watch
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.tracing import Tracing
from sandbox.workers import Workers

log = logging.getLogger(__name__)

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of the running service that requests need."""

    services: Services
    tracing: Tracing
    previews: PreviewApp
    connections: OpenConnections


@dataclass(frozen=True, slots=True)
class _Core:
    """The parts from which most others are built."""

    settings: Settings
    db: Database
    disk: DiskSpace
    recorder: Recorder
    tracing: Tracing
    intake: Intake
    environments: Environments
    signer: Signer
    catalog: RuntimeCatalog
    images: RuntimeImages
    engine: DockerEngine
    installs: KeptInstalls
    causes: Causes


@asynccontextmanager
async def running(settings: Settings, *, edge: bool) -> AsyncIterator[Running]:
    """Migrate the database and run every part of the service for the block. Parts are closed in reverse order."""
    async with AsyncExitStack() as stack:
        # Before the first process of any kind, so that all are forked from one that has imported everything.
        readers = [module.__name__ for module in (upload, junit, coverage, preparing, reading)]
        workers = Workers(modules=[*readers, *formats.PARSERS])
        # Of their own: a launch that has failed does not wait for uploads.
        causes = Causes(Workers(modules=[cause_reading.__name__]))
        core = await _start_core(stack, settings, await started(stack, DatabaseServer(settings)), causes)
        access = await started(stack, TokenService(core.db))
        await ensure_admin(core.db, settings)
        project_service = ProjectService(core.db, core.catalog, settings, workers, require_room=core.disk.require_room)
        refiner = Refiner(core.db, Wording.of(settings))
        await started(stack, RefinementSchedule(core.db, refiner, settings.refinement_interval_seconds))
        broker = await started(stack, EventBroker(core.db))
        feed = await started(stack, SessionFeed(core.db))
        tail = LogTail(core.db)
        close_at_end(stack, tail.close)
        session_service = await started(stack, _session_service(core, project_service))
        grants = await _start_grants(stack, core, session_service) if edge else None
        door = Visitor(settings, GrantStore(core.db), grants) if grants else None
        alerts = Alerts(notify=settings.alert_webhook_url is not None)
        recovery_service = RecoveryService(core.db, core.engine, alerts, new_origin)
        watcher = await _start_watcher(stack, core, session_service, recovery_service)
        replica = await _start_reconciler(stack, core, project_service, watcher, refiner, door)
        await _start_pool(stack, core)
        limit = settings.records_mb_per_user * MIB
        space = await started(stack, RecordSpace(core.db, limit=limit, days=settings.retention_logs_days))
        receiver = Receiver(core.intake, space, require_room=core.disk.require_room)
        exports = await _start_exports(stack, core, replica, receiver)
        parts, history = (core.db, core.engine, recovery_service, core.environments), settings.session_history_days
        await started(stack, Housekeeper(*parts, history_days=history))
        previews = PreviewApp(
            SessionResolver(session_service, core.engine),
            core.signer,
            settings.preview_domain,
            authenticator=TokenAuthenticator(access),
            grants=grants,
            by_address=settings.addresses_count,
        )
        close_at_end(stack, previews.aclose)
        maintenance = Maintenance(core.db, settings, core.recorder, core.engine.ping)
        maintenance.start()
        close_at_end(stack, maintenance.close)
        services = Services(
            settings=settings,
            db=core.db,
            disk=core.disk,
            engine=core.engine,
            broker=broker,
            feed=feed,
            tokens=access,
            audit=await started(stack, AuditLog(core.db)),
            secrets=core.environments.secrets,
            signer=core.signer,
            installs=core.installs,
            projects=project_service,
            sessions=session_service,
            recovery=recovery_service,
            intake=core.intake,
            recorder=core.recorder,
            receiver=receiver,
            space=space,
            exports=exports,
            reports=ReportReader(workers),
            tail=tail,
            refiner=refiner,
            outcomes=Outcomes(alerts),
            documents=DocumentReader(workers),
            search=await started(stack, DocumentSearch(core.db, EmbeddingModel.of(settings))),
            memory=MemoryService(core.db, bytes_per_user=settings.memory_mb_per_user * MIB),
        )
        connections = await started(stack, OpenConnections(access))
        yield Running(services, core.tracing, previews, connections)
        log.info("stopping; sandboxes keep running")


async def _start_core(stack: AsyncExitStack, settings: Settings, server: DatabaseServer, causes: Causes) -> _Core:
    db = Database(server.dsn, explain=server.explain)
    close_at_end(stack, db.close)
    watch(db)
    await started(stack, Liveness(db, server.replace_silent))
    recorder = Recorder(db)
    recorder.start()
    close_at_end(stack, recorder.close)
    configure_logging(settings, recorder)
    intake = Intake(
        server.dsn, max_body_bytes=settings.max_intake_mb * MIB, max_waiting_bytes=settings.intake_queue_mb * MIB
    )
    close_at_end(stack, intake.close)
    deployment = await load_deployment(db)
    engine = DockerEngine(
        settings, deployment.deployment_id, guest_factory=GuestClient, environment=container_environment().env
    )
    close_at_end(stack, engine.aclose)
    keys = await load_keys(settings)
    signer = Signer(keys.signing_keys("signing"), earlier_exports_key=await adopt_keys(db, keys))
    environments = Environments(keys, SecretService(db, keys))
    engine_folder = partial(data_folder, settings.docker_host)
    disk = await started(stack, DiskSpace.of(db, settings, [server.folder, engine_folder]))
    catalog = RuntimeCatalog()
    images = RuntimeImages(catalog, settings.docker_host)
    installs = KeptInstalls(settings.home / "installs", settings.installs_mb * MIB, require_room=disk.require_room)
    tracing = Tracing(recorder)
    return _Core(
        settings, db, disk, recorder, tracing, intake, environments, signer, catalog, images, engine, installs, causes
    )


def _session_service(core: _Core, projects: ProjectService) -> SessionService:
    runtimes = [runtime.name for runtime in core.catalog.list()]
    parts = (core.db, core.engine, projects, SessionLimits.of(core.settings), runtimes)
    return SessionService(*parts, environments=core.environments, require_room=core.disk.require_room)


async def _start_watcher(
    stack: AsyncExitStack, core: _Core, service: SessionService, recover: RecoveryService
) -> Watcher:
    """Start the parts that detect lost sessions, and those that bring them back without an admin."""
    automatic = AutomaticRecovery(core.db, recover, has_room=core.disk.has_room)
    if core.settings.recover_at_start:
        await started(stack, automatic)
    answers = automatic.engine_answers
    parts = (core.db, core.engine, core.environments, core.causes)
    watcher = Watcher(*parts, on_change=service.forget, on_engine=answers)
    return await started(stack, watcher)


async def _start_reconciler(
    stack: AsyncExitStack,
    core: _Core,
    projects: ProjectService,
    watcher: Watcher,
    refiner: Refiner,
    door: PreviewDoor | None,
) -> Replica:
    """Register this replica, and start the reconciler with the launch pipeline."""
    slots = LaunchSlots(core.settings.concurrent_launches, core.settings.launches_per_user)
    replica = await started(stack, Replica(core.db))
    outcomes = Outcomes(Alerts(notify=core.settings.alert_webhook_url is not None))
    reconciler = Reconciler(
        core.db,
        core.engine,
        Pipeline(
            core.db,
            core.engine,
            core.tracing,
            _stages(core, projects, refiner, slots, door),
            outcomes,
            environments=core.environments,
            engine_wait_seconds=core.settings.engine_wait_seconds,
        ),
        replica,
        slots=slots,
        lease_seconds=core.settings.replica_lease_seconds,
        on_launch_end=watcher.check,
    )
    await started(stack, reconciler)
    return replica


async def _start_exports(stack: AsyncExitStack, core: _Core, replica: Replica, receiver: Receiver) -> ExportService:
    """Start fetching OTLP exports from containers."""
    settings = core.settings
    parts, limit = (core.db, core.signer, receiver, core.environments), settings.session_records_per_minute
    service = ExportService(*parts, records_per_minute=limit)
    collector = Collector(core.db, core.engine, replica, service, lease_seconds=settings.replica_lease_seconds)
    await started(stack, collector)
    return service


async def _start_grants(stack: AsyncExitStack, core: _Core, sessions: SessionService) -> Grants:
    folder = EdgeFolder.of(core.settings)
    folder.make()
    store = GrantStore(core.db)
    await started(stack, PreviewRequests(folder, store, sessions.touch, sessions.failed_requests))
    return await started(stack, Grants(folder, store, core.engine, sessions.touch))


async def _start_pool(stack: AsyncExitStack, core: _Core) -> None:
    """Start keeping containers ready. Without a pool, what an earlier setting has left of it is removed."""
    settings = core.settings
    size = PoolSize(settings.pool_min, settings.pool_max)
    runtimes = [runtime.name for runtime in core.catalog.list()]
    keeper = PoolKeeper(
        core.db, core.engine, core.images, runtimes, _limits(settings), size, require_room=core.disk.require_room
    )
    await started(stack, keeper)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.memory_mb * MIB, settings.cpus, settings.pids, settings.disk_mb * MIB)


def _stages(
    core: _Core, projects: ProjectService, refiner: Refiner, slots: LaunchSlots, door: PreviewDoor | None
) -> list[Stage]:
    """The launch stages, in order."""
    settings = core.settings
    options = LessonOptions.of(settings)
    keeper = InstallKeeper(core.installs, core.images, partial(core.environments.keys.digest, purpose="install"))
    return [
        PlanStage(projects, LaunchLessons(core.db, options, refiner.rework)),
        NetworkStage(),
        ContainersStage(
            core.images, _limits(settings), core.signer.sign_exports, settings.preview_url, pool=settings.pool_max > 0
        ),
        WorkspaceStage(projects),
        WithoutSlot(DependenciesStage(settings.install_timeout_seconds, keeper, core.causes), slots),
        ServicesStage(),
        HealthStage(settings.health_timeout_seconds, door, settings.preview_url, core.causes),
        PreviewStage(settings.preview_url),
    ]
