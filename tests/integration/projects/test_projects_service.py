"""Projects in a real database: stored, replaced, listed and deleted. Sources in use by sessions are not deleted."""

import asyncio
import io
import secrets
import tarfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.domain.caller import Caller, CallerRole
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.errors import Conflict, InvalidInput, Kind, NotFound, SandboxError
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.archive_tree import ArchiveRefused
from sandbox.projects.detection.detect import PlanUndetected
from sandbox.projects.manifest import PlanInvalid
from sandbox.projects.project import ProjectRef
from sandbox.projects.service import ProjectService
from sandbox.sessions.housekeeping.store import drop_unused_archives
from sandbox.settings import Settings
from sandbox.workers import Workers

ANN = Caller("ann", CallerRole.USER, "1")
BOB = Caller("bob", CallerRole.USER, "2")
ADMIN = Caller("root", CallerRole.ADMIN, "3")
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"

Upload = Callable[..., Path]


@pytest.fixture
def service(database: Database) -> ProjectService:
    return ProjectService(database, RuntimeCatalog(), Settings(max_project_mb=1), Workers())


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    def pack(files: dict[str, str]) -> Path:
        archive = tmp_path / f"{uuid4()}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content.encode())
                tar.addfile(info, io.BytesIO(content.encode()))
        return archive

    return pack


async def count(database: Database, table: str) -> int:
    async with database.transaction() as conn:
        return int((await conn.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def stored_after_an_hour(database: Database) -> int:
    """Return how many archives are left once the periodic clean-up has deleted those whose grace period is over."""
    async with database.transaction() as conn:
        assert await drop_unused_archives(conn) == 0
        await conn.execute(text("UPDATE project_archives SET created_at = created_at - INTERVAL '61 minutes'"))
        await drop_unused_archives(conn)
    return await count(database, "project_archives")


async def make_session(database: Database, digest: str) -> None:
    async with database.transaction() as conn:
        await conn.execute(
            text("""INSERT INTO sandbox_sessions (user_id, runtime_type, pipeline_run_id, project_digest)
                    VALUES ('ann', 'python312', 'r', :digest)"""),
            {"digest": digest},
        )


async def test_put_get_and_put_again(service: ProjectService, database: Database, upload: Upload) -> None:
    first, created = await service.put(ANN, "shop", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    assert created
    assert first.plan
    assert (first.files, first.size_bytes, first.plan.preview_port) == (1, len(FASTAPI), 8000)
    assert await service.get(ANN, "shop") == first
    again, created = await service.put(ANN, "shop", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    assert not created
    assert again == first
    replaced, created = await service.put(ANN, "shop", upload({"index.html": "hi"}), ArchiveKind.TAR_GZ)
    assert not created
    assert replaced.digest != first.digest
    assert replaced.plan
    assert (replaced.created_at, list(replaced.plan.roles)) == (first.created_at, ["frontend"])
    assert replaced.updated_at > first.updated_at
    assert await service.reference(ANN, "shop") == ProjectRef(replaced.digest, "python312")
    assert await service.archive(first.digest)
    assert await stored_after_an_hour(database) == 1


async def test_the_stored_archive_is_the_source(service: ProjectService, upload: Upload) -> None:
    project, _ = await service.put(ANN, "shop", upload({"top/main.py": FASTAPI, "top/a/b": "x"}), ArchiveKind.TAR_GZ)
    with tarfile.open(fileobj=io.BytesIO(await service.archive(project.digest))) as tar:
        assert tar.getnames() == ["a", "a/b", "main.py"]
    assert await service.plan_for(project.digest) == project.plan
    with pytest.raises(NotFound):
        await service.archive("sha256:0")


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"../main.py": FASTAPI}, ArchiveRefused),
        ({"main.py": FASTAPI + "#" * (2 << 20)}, ArchiveRefused),
    ],
)
async def test_a_refused_archive_changes_nothing(
    service: ProjectService, database: Database, upload: Upload, files: dict[str, str], error: type[Exception]
) -> None:
    kept, _ = await service.put(ANN, "shop", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    for project_id in ("shop", "other"):
        with pytest.raises(error):
            await service.put(ANN, project_id, upload(files), ArchiveKind.TAR_GZ)
    assert await service.list(ANN, 10) == [kept]
    assert await count(database, "project_archives") == 1


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"README.md": "nothing"}, "plan_undetected"),
        ({"main.py": FASTAPI, "sandbox.toml": "[backend]\nport = 0\n"}, "plan_invalid"),
    ],
)
async def test_a_project_without_a_known_plan_is_stored_and_launches_with_a_requested_one(
    service: ProjectService, upload: Upload, files: dict[str, str], code: str
) -> None:
    project, created = await service.put(ANN, "odd", upload(files), ArchiveKind.TAR_GZ)
    assert created
    assert project.plan is None
    assert project.plan_problem
    assert (project.plan_problem.code, bool(project.plan_problem.hint)) == (code, True)
    assert await service.get(ANN, "odd") == project
    with pytest.raises(InvalidInput) as refused:
        await service.reference(ANN, "odd")
    assert (refused.value.code, refused.value.message) == (code, project.plan_problem.message)
    with pytest.raises((PlanUndetected, PlanInvalid)):
        await service.plan_for(project.digest)
    requested = {"web": {"runtime": "node20", "start": "node x.js", "port": 4000}}
    assert await service.reference(ANN, "odd", requested) == ProjectRef(project.digest, "node20")
    plan = await service.plan_for(project.digest, requested)
    assert (list(plan.roles), plan.roles["web"].start, plan.preview_port) == (["web"], "node x.js", 4000)
    known, _ = await service.put(ANN, "odd", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    assert known.plan
    assert known.plan_problem is None


async def test_the_previous_release_replaces_a_project_whose_plan_was_unknown(
    service: ProjectService, database: Database, upload: Upload
) -> None:
    await service.put(ANN, "odd", upload({"README.md": "nothing"}), ArchiveKind.TAR_GZ)
    known, _ = await service.put(ANN, "known", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    async with database.transaction() as conn:
        await conn.execute(
            text("""UPDATE projects SET digest = k.digest, plan = k.plan
                      FROM projects k WHERE projects.project_id = 'odd' AND k.project_id = 'known'""")
        )
    odd = await service.get(ANN, "odd")
    assert (odd.plan, odd.plan_problem) == (known.plan, None)


@pytest.mark.parametrize("project_id", ["", ".", ".hidden", "a/b", "a b", "ä", "a\0", "x" * 256])
async def test_invalid_ids(service: ProjectService, upload: Upload, project_id: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await service.put(ANN, project_id, upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    assert refused.value.code == "project_id_invalid"
    with pytest.raises(NotFound):
        await service.get(ANN, project_id)


async def test_another_users_project_does_not_exist(
    service: ProjectService, database: Database, upload: Upload
) -> None:
    archive = upload({"main.py": FASTAPI})
    mine, _ = await service.put(ANN, "shop", archive, ArchiveKind.TAR_GZ)
    for call in (service.get, service.delete, service.reference):
        with pytest.raises(NotFound) as refused:
            await call(BOB, "shop")
        assert refused.value.code == "project_not_found"
    assert await service.list(BOB, 10) == []
    assert await service.get(ADMIN, "shop") == mine
    theirs, created = await service.put(BOB, "shop", archive, ArchiveKind.TAR_GZ)
    assert created
    assert theirs.digest == mine.digest
    assert await count(database, "project_archives") == 1
    assert await service.list(ADMIN, 10) == [theirs, mine]
    with pytest.raises(Conflict, match="several users"):
        await service.get(ADMIN, "shop")
    await service.delete(BOB, "shop")
    assert await service.archive(mine.digest)
    await service.delete(ADMIN, "shop")
    assert await stored_after_an_hour(database) == 0


async def test_the_list_continues_after_a_position(service: ProjectService, upload: Upload) -> None:
    archive = upload({"main.py": FASTAPI})
    for number in range(5):
        await service.put(ANN, f"p{number}", archive, ArchiveKind.TAR_GZ)
    seen: list[str] = []
    before = None
    while page := await service.list(ANN, 2, before):
        seen += [project.project_id for project in page]
        before = (page[-1].created_at, page[-1].key)
    assert seen == ["p4", "p3", "p2", "p1", "p0"]


async def test_the_source_of_a_session_is_not_deleted(
    service: ProjectService, database: Database, upload: Upload
) -> None:
    project, _ = await service.put(ANN, "shop", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    await make_session(database, project.digest)
    await service.put(ANN, "shop", upload({"index.html": ""}), ArchiveKind.TAR_GZ)
    await service.delete(ANN, "shop")
    assert await count(database, "projects") == 0
    assert await stored_after_an_hour(database) == 1
    assert await service.archive(project.digest)
    assert await service.plan_for(project.digest) == project.plan


async def test_a_released_source_is_available_to_a_session_that_is_being_created(
    service: ProjectService, database: Database, upload: Upload
) -> None:
    await service.put(ANN, "shop", upload({"main.py": FASTAPI}), ArchiveKind.TAR_GZ)
    async with database.transaction() as conn:
        await conn.execute(text("UPDATE project_archives SET created_at = NOW() - INTERVAL '1 day'"))
    reference = await service.reference(ANN, "shop")
    await service.delete(ANN, "shop")
    async with database.transaction() as conn:
        assert await drop_unused_archives(conn) == 0
    await make_session(database, reference.digest)
    assert await stored_after_an_hour(database) == 1


async def test_concurrent_puts(service: ProjectService, database: Database, upload: Upload) -> None:
    archives = [upload({"main.py": FASTAPI, "n": str(number % 3)}) for number in range(12)]
    results = await asyncio.gather(
        *(service.put(ANN, f"p{n % 2}", archive, ArchiveKind.TAR_GZ) for n, archive in enumerate(archives))
    )
    assert sum(created for _, created in results) == 2
    for project in await service.list(ANN, 10):
        assert await service.archive(project.digest)


async def test_a_cancelled_put_stores_nothing(
    service: ProjectService, database: Database, upload: Upload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    archive = upload({"main.py": FASTAPI, **{f"f{i}": "x" * 1000 for i in range(500)}})
    task = asyncio.create_task(service.put(ANN, "shop", archive, ArchiveKind.TAR_GZ))
    while not list(scratch.iterdir()):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(scratch.iterdir()) == []
    assert await count(database, "projects") == 0


async def test_the_archives_of_a_user_are_limited(database: Database, upload: Upload) -> None:
    service = ProjectService(database, RuntimeCatalog(), Settings(projects_mb_per_user=1), Workers())
    noise = {"main.py": FASTAPI, "noise.txt": secrets.token_hex(600_000)}  # some 600 KB, compressed
    await service.put(ANN, "first", upload(noise), ArchiveKind.TAR_GZ)
    other = noise | {"noise.txt": secrets.token_hex(600_000)}
    with pytest.raises(SandboxError) as refused:
        await service.put(ANN, "second", upload(other), ArchiveKind.TAR_GZ)
    assert (refused.value.code, refused.value.kind) == ("storage_limit", Kind.TOO_LARGE)
    # Replacing one, other users, and admins.
    for caller, name in ((ANN, "first"), (BOB, "first"), (ADMIN, "first"), (ADMIN, "second")):
        await service.put(caller, name, upload(other), ArchiveKind.TAR_GZ)
