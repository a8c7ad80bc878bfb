"""The objects that routes use. `app.py` builds them once and puts them into `app.state.services`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandbox.access.audit import AuditLog
from sandbox.access.signing import Signer
from sandbox.access.tokens import TokenService
from sandbox.db.connection import Database
from sandbox.engine.base import Engine
from sandbox.events.broker import EventBroker
from sandbox.installs.archives import KeptInstalls
from sandbox.knowledge.documents.reading import DocumentReader
from sandbox.knowledge.documents.search import DocumentSearch
from sandbox.knowledge.memory.service import MemoryService
from sandbox.learning.launches.outcomes import Outcomes
from sandbox.learning.refinement.service import Refiner
from sandbox.projects.service import ProjectService
from sandbox.records.disk_space import DiskSpace
from sandbox.records.log_tail import LogTail
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.receiver import Receiver
from sandbox.records.reports.reading import ReportReader
from sandbox.records.space import RecordSpace
from sandbox.secrets.service import SecretService
from sandbox.sessions.exports.service import ExportService
from sandbox.sessions.feed import SessionFeed
from sandbox.sessions.recovery.service import RecoveryService
from sandbox.sessions.service import SessionService
from sandbox.settings import Settings
from sandbox.telemetry.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Services:
    """All objects that routes call."""

    settings: Settings
    db: Database
    disk: DiskSpace
    engine: Engine
    broker: EventBroker
    feed: SessionFeed
    tokens: TokenService
    audit: AuditLog
    secrets: SecretService
    signer: Signer
    installs: KeptInstalls
    projects: ProjectService
    sessions: SessionService
    recovery: RecoveryService
    intake: Intake
    recorder: Recorder
    receiver: Receiver
    space: RecordSpace
    exports: ExportService
    reports: ReportReader
    tail: LogTail
    refiner: Refiner
    outcomes: Outcomes
    documents: DocumentReader
    search: DocumentSearch
    memory: MemoryService


async def services_of(connection: HTTPConnection) -> Services:
    """The services of the application. Asynchronous, because FastAPI runs synchronous dependencies in a thread."""
    return cast(Services, connection.app.state.services)


Injected = Annotated[Services, Depends(services_of)]
