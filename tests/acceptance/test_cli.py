"""The `sandbox` command as users and scripts run it: a separate process against the running service."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.ports import reserve_port

PROGRAM = str(Path(sys.executable).parent / "sandbox")
NOWHERE = "00000000-0000-4000-8000-000000000000"

WEB = """
[backend]
runtime = "python312"
install = "echo installing $GREETING"
start = "python3 -u -m http.server 8000"
port = 8000
health = "/"
"""
UNFINISHED = WEB.replace("echo installing $GREETING", "echo looking; cat /workspace/missing.txt")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def environment(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a caller on another machine, who has only the address and a token."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    home = str(tmp_path_factory.mktemp("caller"))
    return ours | {"SANDBOX_URL": service.url, "SANDBOX_TOKEN": ADMIN_TOKEN, "SANDBOX_HOME": home}


@pytest.fixture(scope="module")
def sandbox(environment: dict[str, str]) -> Run:
    def run(*arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            [PROGRAM, *arguments],
            env=environment | env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            **given,
        )

    return run


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    (folder / "sandbox.toml").write_text(WEB)
    (folder / "index.html").write_text("<h1>hello from the command line</h1>")
    return folder


@pytest.fixture(scope="module")
def created(sandbox: Run, web: Path, admin: Api) -> Iterator[subprocess.CompletedProcess[str]]:
    """The finished `sandbox create` of a project whose launch succeeds."""
    made = sandbox("create", str(web), "--env", "GREETING=gladly")
    assert made.returncode == 0, made.stderr
    yield made
    admin.end(_session_of(made.stdout))


@pytest.fixture(scope="module")
def session_id(created: subprocess.CompletedProcess[str]) -> str:
    return _session_of(created.stdout)


def _session_of(printed: str) -> str:
    return printed.splitlines()[0].split()[1]


def test_create_shows_progress_and_ends_with_the_url(
    created: subprocess.CompletedProcess[str], session_id: str, admin: Api
) -> None:
    progress = re.findall(r"^\[(\d)/8\] (\w+) (\w+)", created.stderr, re.MULTILINE)
    assert [(name, state) for _, name, state in progress if state == "started"] == [
        (name, "started")
        for name in ("plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview")
    ]
    assert "backend │ installing gladly" in created.stderr
    first, url = created.stdout.splitlines()
    assert first.split() == ["session", session_id, "running"]
    assert url.split()[1].split("?")[0] == admin.get(session_id)["preview_url"].split("?")[0]


def test_create_prints_one_json_document_for_scripts(sandbox: Run, web: Path, admin: Api) -> None:
    made = sandbox("create", str(web), "--json")
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    session = json.loads(made.stdout)
    assert session["status"] == "running"
    assert session["preview_url"]

    killed = sandbox("kill", session["session_id"][:13], "--json")
    assert (killed.returncode, json.loads(killed.stdout)) == (0, {"terminated": [session["session_id"]]})
    admin.end(session["session_id"])
    again = sandbox("kill", session["session_id"])
    assert (again.returncode, again.stdout) == (0, f"terminated {session['session_id']}\n")


def test_a_failed_launch_shows_its_cause_and_can_be_recovered(sandbox: Run, admin: Api, tmp_path: Path) -> None:
    (tmp_path / "sandbox.toml").write_text(UNFINISHED)
    failed = sandbox("create", str(tmp_path), "--project", "unfinished")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "The launch failed at dependencies: " in failed.stderr
    assert "[dependency_install_failed]" in failed.stderr
    assert "  │ cat: /workspace/missing.txt: No such file or directory" in failed.stderr
    assert "\nhint: " in failed.stderr
    found = json.loads(sandbox("list", "--project", "unfinished", "--status", "error", "--json").stdout)["items"]
    assert [session["error"]["code"] for session in found] == ["dependency_install_failed"]
    session_id = found[0]["session_id"]

    again = sandbox("relaunch", session_id, "--json")
    assert (again.returncode, again.stdout) == (1, "")
    problem = json.loads(again.stderr)
    assert (problem["code"], problem["stage"]) == ("dependency_install_failed", "dependencies")
    assert "cat: /workspace/missing.txt: No such file or directory" in problem["log_tail"]
    assert problem["hint"]

    assert sandbox("exec", session_id, "--", "touch", "/workspace/missing.txt").returncode == 0
    recovered = sandbox("recover", session_id)
    assert recovered.returncode == 0, recovered.stderr
    assert recovered.stdout.splitlines()[0].split() == ["session", session_id, "running"]
    assert "[5/8] dependencies completed" in recovered.stderr
    assert "dependencies failed" not in recovered.stderr, "the first run's events are not this run's"
    admin.end(session_id)


def test_list(sandbox: Run, session_id: str) -> None:
    listed = sandbox("list", "--status", "running", "--limit", "500")
    assert listed.returncode == 0
    heading, *rows = listed.stdout.splitlines()
    assert heading.split() == ["SESSION", "STATUS", "PROJECT", "ROLES", "AGE", "PREVIEW"]
    assert any(row.startswith(f"{session_id[:8]}  running ") for row in rows)
    items = json.loads(sandbox("list", "--json").stdout)["items"]
    assert session_id in [item["session_id"] for item in items]


def test_exec_has_the_output_and_exit_code_of_the_command(sandbox: Run, session_id: str) -> None:
    ended = sandbox("exec", session_id[:13], "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (ended.returncode, ended.stdout, ended.stderr) == (42, "out\n", "err\n")
    text = "ünïcode\n" * 3
    piped = sandbox("exec", session_id, "cat; pwd", "--cwd", "/tmp", stdin=text)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, f"{text}/tmp\n", "")
    options = sandbox("exec", session_id, "--role", "backend", "--env", "A=b c", "--", "printenv", "A")
    assert (options.returncode, options.stdout) == (0, "b c\n")
    as_json = json.loads(sandbox("exec", session_id, "--json", "--", "sh", "-c", "echo out; exit 3").stdout)
    assert (as_json["exit_code"], as_json["stdout"], as_json["timed_out"]) == (3, "out\n", False)
    late = sandbox("exec", session_id, "--timeout", "0.5", "sleep 60")
    assert late.returncode != 0
    assert "killed after 0.5 s" in late.stderr


def test_logs_of_the_app_and_of_the_launch(sandbox: Run, session_id: str) -> None:
    sandbox("exec", session_id, "python3 -c 'import urllib.request as r; r.urlopen(\"http://127.0.0.1:8000/?marker\")'")
    printed = sandbox("logs", session_id)
    assert printed.returncode == 0
    assert "backend │ Serving HTTP on" in printed.stdout
    assert '"GET /?marker HTTP/1.1" 200' in printed.stdout
    lines = [
        json.loads(line) for line in sandbox("logs", session_id, "--role", "backend", "--json").stdout.splitlines()
    ]
    before = [line.removeprefix("backend │ ") for line in printed.stdout.splitlines()]
    assert [line["line"] for line in lines][: len(before)] == before
    assert {line["role"] for line in lines} == {"backend"}
    assert "installing gladly" in sandbox("logs", "--launch", session_id).stdout
    events = [json.loads(line) for line in sandbox("watch", session_id, "--json").stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "end"


def test_logs_are_followed_until_interrupted(environment: dict[str, str], sandbox: Run, session_id: str) -> None:
    # A shell that runs the tests in the background makes them and their children ignore SIGINT.
    command = ["env", "--default-signal=INT", PROGRAM, "logs", "-f", session_id]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        assert "Serving HTTP" in next(line for line in follow.stdout if "Serving" in line)
        sandbox(
            "exec", session_id, "python3 -c 'import urllib.request as r; r.urlopen(\"http://127.0.0.1:8000/?live\")'"
        )
        assert any("GET /?live " in line for line in follow.stdout)
        follow.send_signal(2)
        assert follow.wait(30) == 130


def test_open_prints_the_preview(sandbox: Run, session_id: str, service: Service) -> None:
    opened = sandbox("open", "--print", session_id)
    assert opened.returncode == 0
    assert opened.stdout.startswith(f"http://{session_id}.preview.localhost:{service.port}/?")


def test_tokens(sandbox: Run, session_id: str) -> None:
    made = json.loads(sandbox("token", "create", "cli-user", "--expires-in", "3600", "--json").stdout)
    theirs = {"SANDBOX_TOKEN": made["token"]}
    assert json.loads(sandbox("list", "--json", **theirs).stdout) == {"items": []}
    assert sandbox("logs", session_id, **theirs).returncode == 3
    refused = sandbox("token", "list", **theirs)
    assert refused.returncode == 4
    assert "error: " in refused.stderr

    listed = sandbox("token", "list")
    assert re.search(rf"^{made['token_id']} +cli-user +user ", listed.stdout, re.MULTILINE)
    assert made["token"] not in listed.stdout
    assert sandbox("token", "revoke", made["token_id"]).returncode == 0
    assert sandbox("list", **theirs).returncode == 4
    assert sandbox("token", "revoke", NOWHERE).returncode == 3


def test_errors_have_their_exit_codes(sandbox: Run, tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{reserve_port()}"
    for arguments, env, code, message in (
        (("list",), {"SANDBOX_URL": away}, 5, f"error: {away} does not answer"),
        (("list",), {"SANDBOX_TOKEN": "mistyped"}, 4, "[token_unknown]"),
        (("list",), {"SANDBOX_TOKEN": ""}, 4, "SANDBOX_TOKEN"),
        (("logs", NOWHERE), {}, 3, "[session_not_found]"),
        (("exec", NOWHERE, "true"), {}, 3, "[session_not_found]"),
        (("kill", NOWHERE), {}, 3, "[session_not_found]"),
        (("create", "--project", "no-such-project"), {}, 3, "[project_not_found]"),
        (("create", str(tmp_path / "nothing")), {}, 1, str(tmp_path / "nothing")),
        (("create", "--runtime", "cobol"), {}, 2, "cobol"),
        (("kill", "not-an-id"), {}, 2, "not-an-id"),
        (("list", "--status", "asleep"), {}, 2, "asleep"),
    ):
        ended = sandbox(*arguments, **env)
        assert (ended.returncode, ended.stdout) == (code, ""), (arguments, ended.stderr)
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
    problem = json.loads(sandbox("logs", NOWHERE, "--json").stderr)
    assert (problem["code"], problem["status"]) == ("session_not_found", 404)


def test_doctor(sandbox: Run, service: Service, tmp_path: Path) -> None:
    well = sandbox("doctor", "--json", SANDBOX_HOME=str(service.home), SANDBOX_PORT=str(service.port))
    found = {item["check"]: item for item in json.loads(well.stdout)["items"]}
    assert {name for name, item in found.items() if item["verdict"] == "fail"} <= {"port"}
    assert found["service"]["detail"] == f"{service.url} is ready"
    assert "migrations applied" in found["database"]["detail"]
    assert found["engine"]["verdict"] == "ok"

    ill = sandbox("doctor", DOCKER_HOST="unix:///nowhere/docker.sock", SANDBOX_PORT=str(reserve_port()))
    assert ill.returncode == 1
    assert re.search(r"^engine +fail ", ill.stdout, re.MULTILINE)
    assert re.search(r"^service +warn +nothing answers .* sandbox up", ill.stdout, re.MULTILINE)


def test_runtimes(sandbox: Run) -> None:
    items = json.loads(sandbox("runtimes", "list", "--json").stdout)["items"]
    assert {item["name"] for item in items} >= {"python312", "node20"}
    assert all(item["image"] for item in items)
    listed = sandbox("runtimes", "list")
    assert listed.returncode == 0
    assert "not built" not in listed.stdout


def test_the_installed_program_has_help(sandbox: Run) -> None:
    whole = sandbox("--help")
    assert whole.returncode == 0
    commands = re.findall(r"^│ ([a-z]+) ", whole.stdout, re.MULTILINE)
    assert {"up", "migrate", "doctor", "create", "list", "logs", "exec", "shell", "open", "kill"} <= set(commands)
    one = sandbox("exec", "--help")
    assert one.returncode == 0
    assert "Example: sandbox exec" in one.stdout


class Screen:
    """The terminal of a program that runs in it."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until the pattern appears; drop the output up to its end."""
        deadline = time.monotonic() + 60
        while (found := re.search(pattern, self.shown)) is None:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} is not shown in {self.shown!r}"
            self.shown += os.read(self.master, 65_536).decode(errors="replace")
        self.shown = self.shown[found.end() :]
        return found


@contextmanager
def _on_a_terminal(arguments: list[str], env: dict[str, str]) -> Iterator[tuple[Screen, subprocess.Popen[bytes]]]:
    master, slave = pty.openpty()
    os.set_blocking(master, True)
    subprocess.run(["stty", "rows", "40", "cols", "120"], stdin=slave, check=True)
    # These variables of the process that runs the tests would override the size of this terminal.
    own = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        env=own | {"TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Screen(master), process
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_shell_on_a_terminal(environment: dict[str, str], session_id: str) -> None:
    with _on_a_terminal(["shell", session_id], environment) as (screen, process):
        screen.type("stty size; id -un; tty\r")
        screen.expect(r"\r40 120\r\n")
        screen.expect(r"sandbox\r\n/dev/pts/\d+\r\n")
        screen.type("sh -c 'echo $((40 + 1))-asleep; exec sleep 600'\r")
        screen.expect("41-asleep")
        screen.type("\x03")
        screen.expect(r"/workspace\S*\$ $")
        screen.type("echo $((40 + 2))-still-here\r")
        screen.expect("42-still-here")
        screen.type("exit\r")
        assert process.wait(30) == 0


def test_shell_needs_a_terminal(sandbox: Run, session_id: str) -> None:
    refused = sandbox("shell", session_id)
    assert refused.returncode == 1
    assert "A shell needs a terminal" in refused.stderr
    assert "sandbox exec" in refused.stderr
