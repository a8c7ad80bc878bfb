"""The routes of the platform's records over a real database, with clients for an admin and for users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from sandbox.access.signing import Signer
from sandbox.access.tokens import TokenService
from sandbox.api.http import problems
from sandbox.api.routers import records_routers
from sandbox.db.connection import Database
from sandbox.domain.caller import CallerRole
from sandbox.knowledge.documents.reading import DocumentReader
from sandbox.knowledge.documents.search import DocumentSearch
from sandbox.knowledge.memory.service import MemoryService
from sandbox.learning.launches.outcomes import Outcomes
from sandbox.learning.refinement.service import Refiner
from sandbox.records.alerts.store import Alerts
from sandbox.records.log_tail import LogTail
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.receiver import Receiver
from sandbox.records.reports.reading import ReportReader
from sandbox.records.space import RecordSpace
from sandbox.sessions.exports.service import ExportService
from sandbox.settings import Settings
from sandbox.telemetry.recorder import Recorder
from sandbox.workers import Workers
from tests.fakes.secrets import environments
from tests.fakes.secrets import signer as signer_of


@dataclass
class Services:
    settings: Settings
    db: Database
    tokens: TokenService
    intake: Intake
    recorder: Recorder
    receiver: Receiver
    space: RecordSpace
    signer: Signer
    exports: ExportService
    reports: ReportReader
    tail: LogTail
    refiner: Refiner
    outcomes: Outcomes
    documents: DocumentReader
    search: DocumentSearch
    memory: MemoryService


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def services(dsn: str, database: Database, settings: Settings) -> AsyncIterator[Services]:
    signer = signer_of()
    tokens = TokenService(database)
    recorder = Recorder(database)
    recorder.start()
    tail = LogTail(database)
    intake = Intake(
        dsn,
        max_body_bytes=settings.max_intake_mb * 1024 * 1024,
        max_waiting_bytes=settings.intake_queue_mb * 1024 * 1024,
        timeout_seconds=60,
    )
    space = RecordSpace(database, limit=10_000, days=30)
    receiver = Receiver(intake, space)
    exports = ExportService(
        database, signer, receiver, environments(database), records_per_minute=settings.session_records_per_minute
    )
    workers = Workers()
    yield Services(
        settings,
        database,
        tokens,
        intake,
        recorder,
        receiver,
        space,
        signer,
        exports,
        ReportReader(workers),
        tail,
        Refiner(database),
        Outcomes(Alerts(notify=False)),
        DocumentReader(workers),
        DocumentSearch(database),
        MemoryService(database, bytes_per_user=100_000),
    )
    await tail.close()
    await intake.close()
    await recorder.close()


@pytest.fixture
def app(services: Services) -> FastAPI:
    app = FastAPI()
    app.state.services = services
    problems.install(app)
    for router in records_routers():
        app.include_router(router)
    return app


async def _caller(app: FastAPI, services: Services, user_id: str, role: CallerRole) -> httpx.AsyncClient:
    token = (await services.tokens.create(user_id, role)).token
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test", headers={"X-API-Key": token}, timeout=30
    )


@pytest.fixture
async def admin(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with await _caller(app, services, "root", CallerRole.ADMIN) as client:
        yield client


@pytest.fixture
async def ada(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with await _caller(app, services, "ada", CallerRole.USER) as client:
        yield client


@pytest.fixture
async def bob(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with await _caller(app, services, "bob", CallerRole.USER) as client:
        yield client


@pytest.fixture
async def server(app: FastAPI) -> AsyncIterator[str]:
    """The URL of the application served over HTTP."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task
