"""The synchronous and the asynchronous SDK, and the SDK across a crash of the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.client import AsyncSandbox, ClientConfig, LaunchFailed, NotFoundError, Sandbox, SandboxError
from sandbox.domain.events import EventType
from sandbox.domain.session import SessionStatus
from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service

WEB = """
[backend]
runtime = "python312"
start = "python3 -u -m http.server 8000"
port = 8000
health = "/"
"""
GATED = (
    WEB + 'install = "for i in $(seq 100); do echo line $i; done; until [ -e gate ]; do sleep 0.1; done; echo open"\n'
)
#: Prints something, waits for a file, and prints more.
TALKS = "echo first; echo problem >&2; until [ -e /tmp/go-on ]; do sleep 0.05; done; echo second"


@pytest.fixture(scope="module")
def config(service: Service) -> ClientConfig:
    return ClientConfig(service.url, ADMIN_TOKEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sdk")
    (made / "sandbox.toml").write_text(WEB)
    (made / "index.html").write_text("<h1>hello from the SDK</h1>")
    return made


@pytest.fixture(scope="module")
def sandbox(config: ClientConfig, folder: Path, admin: Api) -> Iterator[Sandbox]:
    """A sandbox launched from a folder."""
    made = Sandbox.create(folder, config=config)
    yield made
    admin.end(made.session_id)
    made.close()


@pytest.fixture
async def same(sandbox: Sandbox, config: ClientConfig) -> AsyncIterator[AsyncSandbox]:
    """The same sandbox through the asynchronous SDK."""
    connected = await AsyncSandbox.connect(sandbox.session_id, config=config)
    yield connected
    await connected.aclose()


def test_create_connect_list_and_kill(config: ClientConfig, folder: Path, admin: Api) -> None:
    events: list[EventType] = []
    with Sandbox.create(folder, config=config, on_event=lambda event: events.append(event.type)) as made:
        assert made.info.status is SessionStatus.RUNNING
        assert events[-1] is EventType.END
        assert EventType.PREVIEW in events
        again = Sandbox.connect(made.session_id, config=config)
        assert again.info.session_id == made.session_id
        listed = Sandbox.list(project_id=made.info.project_id, config=config)
        assert made.session_id in [info.session_id for info in listed]
        again.close()
    admin.end(made.session_id)
    over = Sandbox.connect(made.session_id, config=config)
    assert over.info.status is SessionStatus.TERMINATED
    over.kill()
    over.close()


async def test_create_and_kill_asynchronously(config: ClientConfig, admin: Api) -> None:
    async with await AsyncSandbox.create(config=config) as made:
        assert made.info.status is SessionStatus.READY
        assert [event.seq async for event in made.events(after=3)][:2] == [4, 5]
        ready = await AsyncSandbox.list(status="ready", config=config)
        assert made.session_id in [info.session_id for info in ready]
    await asyncio.to_thread(admin.end, made.session_id)


def test_an_unknown_session_and_an_unknown_folder(config: ClientConfig, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as nowhere:
        Sandbox.connect("00000000-0000-4000-8000-000000000000", config=config)
    assert nowhere.value.code == "session_not_found"
    with pytest.raises(SandboxError, match="nothing"):
        Sandbox.create(tmp_path / "nothing", config=config)


def test_a_failed_launch(config: ClientConfig, tmp_path: Path, admin: Api) -> None:
    (tmp_path / "sandbox.toml").write_text(WEB.replace('8000"', '8000"\ninstall = "echo no such package; exit 9"'))
    with pytest.raises(LaunchFailed) as failed:
        Sandbox.create(tmp_path, config=config)
    assert (failed.value.code, failed.value.stage) == ("dependency_install_failed", "dependencies")
    assert "no such package" in failed.value.log_tail
    assert failed.value.hint
    after_failure = Sandbox.connect(failed.value.session_id, config=config)
    assert after_failure.info.status is SessionStatus.ERROR
    after_failure.close()
    admin.end(failed.value.session_id)


def test_commands(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("echo $A; pwd; cat; exit 7", cwd="/tmp", env={"A": "b c"}, stdin="piped in")
    assert (result.exit_code, result.ok, result.stdout, result.stderr) == (7, False, "b c\n/tmp\npiped in", "")
    assert sandbox.commands.run(["printf", "%s|", "a b", "$HOME"], role="backend").stdout == "a b|$HOME|"
    late = sandbox.commands.run("echo before; sleep 60", timeout=3)
    assert (late.timed_out, late.stdout) == (True, "before\n")


def test_the_output_of_a_command_is_streamed(sandbox: Sandbox) -> None:
    printed_first = threading.Event()
    printed: list[str] = []
    errors: list[str] = []

    def on_output(text: str) -> None:
        printed.append(text)
        printed_first.set()

    def write_the_file() -> None:
        printed_first.wait(60)
        sandbox.files.write("/tmp/go-on", "")

    helper = threading.Thread(target=write_the_file)
    helper.start()
    result = sandbox.commands.run(TALKS, on_stdout=on_output, on_stderr=errors.append)
    helper.join()
    assert printed == ["first\n", "second\n"]
    assert errors == ["problem\n"]
    assert (result.exit_code, result.stdout, result.stderr) == (0, "first\nsecond\n", "problem\n")
    sandbox.files.remove("/tmp/go-on")


async def test_concurrent_commands(same: AsyncSandbox) -> None:
    results = await asyncio.gather(*(same.commands.run(f"echo {i}") for i in range(20)))
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(20)]


def test_files(sandbox: Sandbox) -> None:
    everything = bytes(range(256)) * 5000
    sandbox.files.write("made/by/sdk.bin", everything)
    sandbox.files.write("made/ünïcode.txt", "grüße\n")
    assert sandbox.files.read("made/by/sdk.bin", format="bytes") == everything
    assert sandbox.files.read("/workspace/made/ünïcode.txt") == "grüße\n"
    printed = sandbox.commands.run("sha256sum < made/by/sdk.bin; stat -c %u made/by/sdk.bin; id -u").stdout
    _, _, owner, user = printed.split()
    assert owner == user
    listed = {entry.path.rsplit("/", 1)[-1]: (entry.type, entry.size) for entry in sandbox.files.list("made")}
    assert listed["ünïcode.txt"] == ("file", 8)
    assert listed["by"][0] == "directory"
    sandbox.files.remove("made")
    with pytest.raises(NotFoundError):
        sandbox.files.read("made/by/sdk.bin")
    with pytest.raises(SandboxError, match="folder"):
        sandbox.files.read(".")


def test_many_files_with_one_request(sandbox: Sandbox) -> None:
    files: dict[str, str | bytes] = {f"part{number % 7}/file{number}.txt": f"content {number}" for number in range(300)}
    sandbox.files.write_files(files | {"ünïcode.bin": b"\0\xff"}, "many")
    assert sandbox.files.read("many/part3/file10.txt") == "content 10"
    assert sandbox.files.read("many/ünïcode.bin", format="bytes") == b"\0\xff"
    assert sandbox.commands.run("find many -type f | wc -l").stdout == "301\n"
    with pytest.raises(SandboxError) as refused:
        sandbox.files.write_files({"good.txt": "1", "../../outside.txt": "2"}, "many")
    assert refused.value.code == "file_refused"
    assert sandbox.commands.run("ls many/good.txt outside.txt").exit_code != 0


async def test_files_asynchronously(same: AsyncSandbox) -> None:
    await same.files.write("async.txt", "written")
    assert await same.files.read("async.txt") == "written"
    assert "async.txt" in [entry.path.rsplit("/", 1)[-1] for entry in await same.files.list()]
    await same.files.remove("async.txt")


def test_the_host_of_a_port_reaches_the_app(sandbox: Sandbox, service: Service, admin: Api) -> None:
    host = sandbox.get_host(8000)
    assert host == f"8000-{sandbox.session_id}.preview.localhost:{service.port}"
    assert "hello from the SDK" in admin.http.get("/", headers={"Host": host}).text
    assert sandbox.preview_url
    link = httpx.URL(sandbox.preview_url)
    asked = httpx.get(f"{service.url}{link.raw_path.decode()}", headers={"Host": link.netloc.decode()}, trust_env=False)
    assert asked.status_code in (302, 303, 307)
    assert "_sbx" not in asked.headers["location"]


def test_followed_logs_end_when_the_app_exits(config: ClientConfig, tmp_path: Path, admin: Api) -> None:
    (tmp_path / "sandbox.toml").write_text(WEB.replace("python3 -u", "echo $$ > app.pid; exec python3 -u"))
    with Sandbox.create(tmp_path, config=config) as made:
        assert any("Serving HTTP" in line.line for line in made.logs())
        following = made.logs("backend", follow=True)
        assert "Serving HTTP" in next(following).line
        assert made.commands.run("kill $(cat app.pid)").ok
        assert {line.role for line in following} <= {"backend"}
    admin.end(made.session_id)


async def test_events_survive_a_crash_of_the_service(make_service: Callable[..., Service], tmp_path: Path) -> None:
    own = make_service()
    await asyncio.to_thread(own.start)
    (tmp_path / "sandbox.toml").write_text(GATED)
    made = await AsyncSandbox.create(tmp_path, wait=False, config=ClientConfig(own.url, ADMIN_TOKEN))
    in_time = asyncio.create_task(made.wait())
    crashed = False
    events = []
    async for event in made.events():
        events.append(event)
        if event.data.get("line") == "line 100" and not crashed:
            crashed = True
            own.kill()
            await asyncio.to_thread(own.start)
            await made.files.write("gate", "")
    assert crashed
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type is EventType.END
    printed = [event.data["line"] for event in events if event.data.get("stream") == "stdout"]
    assert printed[:101] == [*(f"line {i}" for i in range(1, 101)), "open"]
    assert (await in_time).status is SessionStatus.RUNNING
    assert (await made.commands.run("true")).ok
    await made.kill()
    await made.aclose()
