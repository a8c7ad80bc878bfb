"""The composition root: every object is built here once and handed down; nothing is wired at import.

`create_app` gives the ASGI application. Its lifespan brings up what lives as long as the service (database, recorder,
event broker, reconciler, …) and takes it down in the opposite order, leaving sandboxes running. A second replica is the
same call in another process.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox import __version__
from sandbox.access.first_admin import ensure_admin
from sandbox.access.signing import Signer
from sandbox.access.tokens import TokenService
from sandbox.api import commands, events, files, health, otlp, problems, projects, recovery, sessions, terminal, tokens
from sandbox.api.direct import DirectRoutes
from sandbox.api.limits import BodyLimit
from sandbox.api.middleware import RequestMiddleware
from sandbox.api.openapi import DocumentedApi
from sandbox.api.platform import records_routers
from sandbox.api.services import Services
from sandbox.console import routes as console
from sandbox.db.connection import Database
from sandbox.db.deployment import load_deployment
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.migrations import migrate
from sandbox.engine.base import Limits
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.host_environment import container_environment
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.events.broker import EventBroker
from sandbox.images.runtime_images import RuntimeImages
from sandbox.launch.pipeline import Pipeline
from sandbox.launch.stage import Stage
from sandbox.launch.stages.containers import ContainersStage
from sandbox.launch.stages.dependencies import DependenciesStage
from sandbox.launch.stages.health import HealthStage
from sandbox.launch.stages.network import NetworkStage
from sandbox.launch.stages.plan import PlanStage
from sandbox.launch.stages.preview import PreviewStage
from sandbox.launch.stages.services import ServicesStage
from sandbox.launch.stages.workspace import WorkspaceStage
from sandbox.preview.app import PreviewApp
from sandbox.preview.resolver import SessionResolver, TokenAuthenticator
from sandbox.preview.router import HostRouter
from sandbox.projects.service import ProjectService
from sandbox.records.alerts.store import Alerts
from sandbox.records.log_tail import LogTail
from sandbox.records.maintenance import Upkeep
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.receiver import Receiver
from sandbox.records.reports.reading import ReportReader
from sandbox.sessions.exports.collector import Collector
from sandbox.sessions.exports.service import ExportService
from sandbox.sessions.housekeeping.housekeeper import Housekeeper
from sandbox.sessions.reconciler import Reconciler
from sandbox.sessions.recovery.service import RecoveryService
from sandbox.sessions.replica import Replica
from sandbox.sessions.service import SessionLimits, SessionService, new_origin
from sandbox.sessions.watcher import Watcher
from sandbox.settings import Settings
from sandbox.telemetry.logging import configure_logging
from sandbox.telemetry.metrics.collectors import watch
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """What the running service consists of, as far as requests need it."""

    services: Services
    tracing: Tracing
    previews: PreviewApp


async def database_url(settings: Settings) -> str:
    """The given database, else the embedded one, started."""
    return settings.database_url or await EmbeddedPostgres(settings.home).start()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Bring the service up for the block: migrate, then build and start every part; at its end stop them in turn."""
    dsn = await database_url(settings)
    for name in await migrate(dsn):
        log.info("applied %s", name)
    async with AsyncExitStack() as stack:
        db = Database(dsn)
        stack.push_async_callback(db.close)
        watch(db)
        recorder = Recorder(db)
        recorder.start()
        stack.push_async_callback(recorder.close)
        configure_logging(settings, recorder)
        intake = Intake(
            dsn,
            most_bytes=settings.max_intake_mb * MIB,
            max_waiting_bytes=settings.intake_queue_mb * MIB,
        )
        stack.push_async_callback(intake.close)
        receiver = Receiver(intake)
        tracing = Tracing(recorder)
        deployment = await load_deployment(db)
        signer = Signer(deployment.signing_key)
        access = TokenService(db, signer)
        await ensure_admin(db, settings)

        catalog = RuntimeCatalog()
        engine = DockerEngine(
            settings, deployment.deployment_id, guest_factory=GuestClient, environment=container_environment().env
        )
        stack.push_async_callback(engine.aclose)
        images = RuntimeImages(catalog, settings.docker_host)
        source = ProjectService(db, catalog, settings)
        broker = EventBroker(db)
        await broker.start()
        stack.push_async_callback(broker.close)
        tail = LogTail(db)
        stack.push_async_callback(tail.close)
        service = SessionService(db, engine, source, _limits(settings), [runtime.name for runtime in catalog.list()])
        await service.start()
        stack.push_async_callback(service.close)
        watcher = Watcher(db, engine)
        await watcher.start()
        stack.push_async_callback(watcher.close)
        stages = _stages(settings, source, images, signer)
        replica = await _start_reconciler(stack, settings, db, engine, tracing, stages, watcher)
        exports = ExportService(db, signer, receiver, records_per_minute=settings.session_records_per_minute)
        collector = Collector(db, engine, replica, exports, lease_seconds=settings.replica_lease_seconds)
        await collector.start()
        stack.push_async_callback(collector.close)
        recovering = await _start_housekeeping(stack, settings, db, engine)
        previews = PreviewApp(
            SessionResolver(service, engine),
            signer,
            settings.preview_domain,
            authenticator=TokenAuthenticator(access),
        )
        stack.push_async_callback(previews.aclose)
        upkeep = Upkeep(db, settings, recorder, engine.ping)
        upkeep.start()
        stack.push_async_callback(upkeep.close)
        services = Services(
            settings,
            db,
            engine,
            broker,
            access,
            signer,
            source,
            service,
            recovering,
            intake,
            recorder,
            receiver,
            exports,
            ReportReader(),
            tail,
        )
        yield Running(services, tracing, previews)
        log.info("stopping; sandboxes go on")


async def _start_reconciler(
    stack: AsyncExitStack,
    settings: Settings,
    db: Database,
    engine: DockerEngine,
    tracing: Tracing,
    stages: list[Stage],
    watcher: Watcher,
) -> Replica:
    replica = Replica(db)
    await replica.start()
    stack.push_async_callback(replica.close)
    reconciler = Reconciler(
        db,
        engine,
        Pipeline(db, engine, tracing, stages),
        replica,
        concurrent_launches=settings.concurrent_launches,
        lease_seconds=settings.replica_lease_seconds,
        on_launch_end=watcher.check,
    )
    await reconciler.start()
    stack.push_async_callback(reconciler.close)
    return replica


async def _start_housekeeping(
    stack: AsyncExitStack, settings: Settings, db: Database, engine: DockerEngine
) -> RecoveryService:
    """What finds and repairs differences between database and engine: by an admin's word, and in time."""
    service = RecoveryService(db, engine, Alerts(tell=settings.alert_webhook_url is not None), new_origin)
    housekeeper = Housekeeper(db, engine, service, history_days=settings.session_history_days)
    await housekeeper.start()
    stack.push_async_callback(housekeeper.close)
    return service


def _stages(settings: Settings, source: ProjectService, images: RuntimeImages, signer: Signer) -> list[Stage]:
    """The launch, in order."""
    limits = Limits(settings.memory_mb * MIB, settings.cpus, settings.pids)
    return [
        PlanStage(source),
        NetworkStage(),
        ContainersStage(images, limits, signer.sign_exports),
        WorkspaceStage(source),
        DependenciesStage(settings.install_timeout_seconds),
        ServicesStage(),
        HealthStage(settings.health_timeout_seconds),
        PreviewStage(settings.preview_url),
    ]


def _limits(settings: Settings) -> SessionLimits:
    return SessionLimits(settings.idle_timeout_seconds, settings.max_lifetime_seconds, settings.max_sessions_per_user)


class Application:
    """The whole service as one ASGI application. Lifespan goes to FastAPI, which brings the parts up; everything else
    goes the way of a request: its id and span, then by host name to a preview or to the API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.api = DocumentedApi(
            title="purple8-sandbox", version=__version__, description=_DESCRIPTION, lifespan=self._lifespan
        )
        problems.install(self.api)
        rooms = (health, tokens, projects, sessions, events, commands, files, terminal, recovery, console)
        for router in (*(room.router for room in rooms), *records_routers()):
            # `include_router` looks for each request's route twice, and through layers.
            self.api.router.routes.extend(router.routes)
        self._requests: ASGIApp = self.api

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with running(self._settings) as parts:
            app.state.services = parts.services
            self._requests = self._ways_in(app, parts)
            # What is built by now stays. To look through it for garbage holds everybody up for some 50 ms, every time.
            gc.collect()
            gc.freeze()
            yield
            gc.unfreeze()

    def _ways_in(self, api: FastAPI, parts: Running) -> ASGIApp:
        calls = RequestMiddleware(BodyLimit(api, self._settings.max_body_kb * 1024), parts.tracing)
        service = DirectRoutes(otlp.router, api, parts.services, otherwise=calls)
        previews = RequestMiddleware(parts.previews, parts.tracing)
        return HostRouter(service, previews, self._settings.preview_domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.api if scope["type"] == "lifespan" else self._requests)(scope, receive, send)


def create_app(settings: Settings) -> Application:
    """The service, not started: that is its lifespan's."""
    return Application(settings)


_DESCRIPTION = """\
Generated projects as live, previewable sandboxes.

Upload a project (`PUT /api/v1/projects/{project_id}`), launch it (`POST /api/v1/sessions`), follow the launch
(`GET /api/v1/sessions/{session_id}/events`, SSE) and open its `preview_url`. Every error is an RFC 9457 problem with a
stable `code`, a `detail` that names the cause and a `hint` for the next step.
"""
