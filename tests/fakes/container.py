"""A container of the scripted engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sandbox.engine.base import ContainerSpec, ContainerState, Resource, ResourceKind
from sandbox.engine.labels import container_name
from tests.fakes.exports import ExportQueue
from tests.fakes.files import FakeFiles
from tests.fakes.processes import FakeProcess


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class FakeContainer:
    """One container. Its files are those of its volume."""

    spec: ContainerSpec
    ip: str
    files: FakeFiles
    id: str = field(default_factory=lambda: uuid4().hex)
    status: str = "created"
    exit_code: int | None = None
    out_of_memory: bool = False
    created_at: datetime = field(default_factory=now)
    started_at: datetime | None = None
    logs: str = ""
    processes: dict[str, FakeProcess] = field(default_factory=dict)
    exports: ExportQueue = field(default_factory=ExportQueue)
    connected: bool = True
    #: The session in its labels, which cannot be changed: of a container of the pool, its own id.
    label: UUID = field(default_factory=uuid4)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return container_name(self.spec.session_id, self.spec.role)

    @property
    def state(self) -> ContainerState:
        ended = self.status == "exited"
        return ContainerState(
            id=self.id,
            name=self.name,
            status=self.status,
            ip=self.ip if self.status == "running" else None,
            exit_code=self.exit_code if ended else None,
            out_of_memory=self.out_of_memory,
            started_at=self.started_at,
            session_id=self.spec.session_id,
            role=self.spec.role,
            connected=self.connected,
        )

    @property
    def resource(self) -> Resource:
        spec = self.spec
        return Resource(
            ResourceKind.CONTAINER,
            self.name,
            spec.session_id,
            spec.role,
            self.created_at,
            self.status,
            self.id,
            self.connected,
        )

    def start(self) -> None:
        self.status, self.exit_code, self.out_of_memory = "running", None, False
        self.started_at = now()
        # A guest agent that was started anew knows no processes.
        self.processes = {}

    def stop(self, exit_code: int) -> None:
        self.status, self.exit_code = "exited", exit_code
        for process in self.processes.values():
            process.kill()
        self.exports.disconnect()
