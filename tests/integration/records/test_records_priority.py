"""What is done for records gives way to whoever is answered."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from sandbox.db.driver import connect, connection_params
from sandbox.records.otlp import metronome as program
from sandbox.records.otlp import priority
from sandbox.records.otlp.idle_group import SHARES, IdleGroup
from sandbox.records.otlp.intake import Intake
from sandbox.records.otlp.metronome import MOST_PROCESSORS, Metronome
from sandbox.records.otlp.priority import NICE, local_backend

AUTOGROUP = Path("/proc/self/autogroup")
RECORD = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "one"}}]}]}]}


@pytest.fixture
async def through_another(dsn: str) -> AsyncIterator[str]:
    """The database by a socket at whose other end another process listens: this one."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(f"{conninfo_to_dict(dsn)['host']}/.s.PGSQL.5432")

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, here), pump(there, writer))

    with tempfile.TemporaryDirectory(prefix="p8-", dir="/tmp") as folder:
        async with await asyncio.start_unix_server(pass_on, f"{folder}/.s.PGSQL.5432"):
            yield psycopg.conninfo.make_conninfo(dsn, host=folder)


async def test_the_process_in_postgresql_that_writes_records_gives_way(ada, database):
    assert (await ada.post("/v1/logs", json=RECORD)).status_code == 200
    named = text("SELECT application_name, pid FROM pg_stat_activity WHERE datname = current_database()")
    async with database.read() as connection:
        found = [tuple(row) for row in await connection.execute(named)]
    ours = [pid for name, pid in found if name == "purple8-sandbox"]
    theirs = [pid for name, pid in found if name == "purple8-sandbox intake"]
    assert ours
    assert theirs
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in theirs} == {NICE}
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in ours} == {0}
    if AUTOGROUP.exists():
        for pid in theirs:
            assert Path(f"/proc/{pid}/autogroup").read_text().endswith(f"nice {NICE}\n")


async def test_a_process_is_only_taken_for_the_servers_where_it_is(dsn, through_another):
    async with await connect(connection_params(dsn)) as connection:
        assert local_backend(connection) == connection.info.backend_pid
    async with await connect(connection_params(through_another)) as connection:
        assert Path(f"/proc/{connection.info.backend_pid}").exists()
        assert local_backend(connection) is None


@pytest.fixture
def group() -> Iterator[IdleGroup]:
    group = IdleGroup.make()
    assert group is not None, "no control group can be made here: run the tests as root, outside of a container"
    yield group
    group.remove()
    assert not group.folder.exists()


@pytest.fixture
def bystander() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def members(group: IdleGroup) -> set[int]:
    return {int(pid) for pid in (group.folder / "cgroup.procs").read_text().split()}


def in_use(intake: Intake) -> IdleGroup:
    """The group of a running intake."""
    group = intake._group  # nothing outside needs to know it
    assert group is not None
    return group


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.02)


def is_idle(group: IdleGroup) -> bool:
    return (group.folder / "cpu.idle").read_text() == "1\n"


async def test_both_processes_run_only_while_nobody_else_wants_to(group, services, ada, database):
    assert (await ada.post("/v1/logs", json=RECORD)).status_code == 200
    ours = in_use(services.intake)
    named = text("SELECT pid FROM pg_stat_activity WHERE application_name = 'purple8-sandbox intake'")
    async with database.read() as connection:
        backends = set((await connection.execute(named)).scalars())
    inside = members(ours)
    assert is_idle(ours)
    assert backends
    assert backends < inside
    assert os.getpid() not in inside
    await services.intake.close()
    assert not ours.folder.exists()
    (back,) = [
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if ours.controllers in line.split(":")
    ]
    assert all(back in Path(f"/proc/{pid}/cgroup").read_text().splitlines() for pid in inside - backends)


async def test_work_that_waits_too_long_gets_its_share_and_later_waits_again(
    group, services, ada, database, monkeypatch
):
    monkeypatch.setattr(priority, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(priority, "IMPATIENT_SECONDS", 0.3)
    assert (await ada.post("/v1/logs", json=RECORD)).status_code == 200
    ours = in_use(services.intake)
    await until(lambda: is_idle(ours))  # the process that writes had to be started first
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(ada.post("/v1/logs", json=RECORD))
        await until(lambda: not is_idle(ours))
        shares = [(ours.folder / name).read_text() for name in SHARES if (ours.folder / name).exists()]
        assert shares in [[f"{share}\n"] for share in SHARES.values()]
        await asyncio.sleep(0.7)
        assert not is_idle(ours), "it still waits"
        await connection.execute("COMMIT")
    assert (await waiting).status_code == 200
    await until(lambda: is_idle(ours))


async def test_records_are_written_while_others_want_all_processors(group, ada):
    record = RECORD["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    many = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record] * 8_000}]}]}
    assert (await ada.post("/v1/logs", json=RECORD)).status_code == 200
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        await asyncio.sleep(0.5)
        assert (await ada.post("/v1/logs", json=many)).status_code == 200
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_the_group_of_one_that_was_killed_goes_and_that_of_one_that_lives_stays(group):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = group.outer / f"purple8-intake-{ended.pid}-left"
    left.mkdir()
    another = IdleGroup.make()
    assert another is not None
    assert not left.exists()
    assert group.folder.exists()
    another.remove()


def test_who_was_put_elsewhere_stays_there(group, bystander):
    other = group.outer / f"purple8-intake-{os.getpid()}-other"
    other.mkdir()
    try:
        (other / "cgroup.procs").write_text(str(bystander))
        group.add(bystander)
        assert members(group) == set()
        assert members(replace(group, folder=other)) == {bystander}
        (group.outer / "cgroup.procs").write_text(str(bystander))
        group.add(bystander)
        assert members(group) == {bystander}
        group.remove()
        assert not group.folder.exists()
    finally:
        other.rmdir()


def test_who_may_make_none_has_none(group):
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import os; from sandbox.records.otlp import idle_group; os.setuid(65534);"
            "print(idle_group.IdleGroup.make())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "None\n"


@pytest.fixture
async def metronome() -> AsyncIterator[Metronome]:
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(processors)[:MOST_PROCESSORS])  # with more there would be none
    metronome = Metronome()
    yield metronome
    await metronome.close()
    os.sched_setaffinity(0, processors)


async def test_with_many_processors_there_is_no_metronome(monkeypatch):
    monkeypatch.setattr(program, "MOST_PROCESSORS", len(os.sched_getaffinity(0)) - 1)
    none = Metronome()
    await none.start()
    with none.beating():
        assert none._process is None
    await none.close()


def process_of(metronome: Metronome) -> int:
    process = metronome._process  # nothing outside needs to know it
    assert process is not None
    return process.pid


def times_slept(pid: int) -> int:
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    ]
    return int(line.split()[1])


async def slept_in(seconds: float, pid: int) -> int:
    before = times_slept(pid)
    await asyncio.sleep(seconds)
    return times_slept(pid) - before


def processor_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[36])


async def test_the_metronome_visits_all_processors_while_it_is_to_beat_and_rests_else(metronome):
    await asyncio.gather(metronome.start(), metronome.start())
    pid = process_of(metronome)
    await asyncio.sleep(0.5)
    assert await slept_in(0.5, pid) == 0
    with metronome.beating():
        with metronome.beating():
            await asyncio.sleep(0.2)
        assert await slept_in(0.5, pid) > 50
        seen: set[int] = set()
        async with asyncio.timeout(10):
            while seen != os.sched_getaffinity(0):
                seen.add(processor_of(pid))
                await asyncio.sleep(0.001)
    await asyncio.sleep(0.5)
    assert await slept_in(0.5, pid) == 0
    await metronome.close()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_metronome_that_is_wanted_before_it_is_there_beats_when_it_is(metronome):
    with metronome.beating():
        await metronome.start()
        pid = process_of(metronome)
        await asyncio.sleep(0.5)
        assert await slept_in(0.5, pid) > 50


async def test_the_metronome_beats_while_records_are_written(group, metronome, services, ada, database):
    assert (await ada.post("/v1/logs", json=RECORD)).status_code == 200
    pid = process_of(services.intake._metronome)
    await asyncio.sleep(0.5)
    assert await slept_in(0.5, pid) == 0
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(ada.post("/v1/logs", json=RECORD))
        await asyncio.sleep(0.2)
        assert await slept_in(0.5, pid) > 50
        await connection.execute("COMMIT")
    assert (await waiting).status_code == 200
    await services.intake.close()
    assert not Path(f"/proc/{pid}").exists()
