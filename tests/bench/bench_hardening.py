"""What other users notice while one user attacks the service: the p99 of a request, attacked ÷ quiet, and memory.

Each kind of attack goes on in a thread while another user sends small requests. Quiet and attacked rounds alternate, so
that other load of the machine affects both.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil

from tests.acceptance.api import SESSIONS, Api, tar_of
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench.measure import p50, print_ratio

#: Rounds of each kind, half of them quiet, and the seconds of each.
ROUNDS = 4
ROUND_SECONDS = 2.0
PAUSE_SECONDS = 0.01
MEMORY_MB = 300
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
INSTALLS = 8
SLOW = """
[web]
runtime = "python312"
install = "sleep 60"
start = "python3 -m http.server 8080"
port = 8080
"""

Attack = Callable[[], object]


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    service = Service(home)
    service.start()
    admin = Api(service.url, ADMIN_TOKEN)
    attacker, other = (_user(admin, service, name) for name in ("attacker", "other"))
    try:
        session, _ = attacker.launch()
        ident = session["session_id"]
        for name, attack in _attacks(attacker, service, ident).items():
            _measure(name, attack, other)
        _launches(attacker, other)
        assert service.process is not None
        used = psutil.Process(service.process.pid).memory_info().rss / 2**20
        print_ratio("memory of the service afterwards, MiB", used, f"under {MEMORY_MB}")
    finally:
        for found in admin.http.get(SESSIONS, params={"limit": 500}).json()["items"]:
            if found["status"] != "terminated":
                admin.end(found["session_id"])
        for api in (admin, attacker, other):
            api.http.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


def _user(admin: Api, service: Service, name: str) -> Api:
    token = admin.http.post("/api/v1/tokens", json={"user_id": name, "role": "user"}).json()["token"]
    return Api(service.url, token)


def _attacks(api: Api, service: Service, ident: str) -> dict[str, Attack]:
    """The attacks by name. Each call is one piece of it, of at most some seconds."""
    cases = "".join(f'<testcase name="t{n}"><failure message="x">{".a" * 8000}</failure></testcase>' for n in range(4))
    report = f"<testsuite>{cases}</testsuite>".encode()
    toml = tar_of({"pyproject.toml": "a." * 8000 + "a=1\n", "main.py": FASTAPI})
    imports = "import " + ",".join(f"q{number}" for number in range(1000))
    many = {f"d/x{number}.txt": "" for number in range(4000)}
    detection = tar_of({**many, "a/b/main.py": f"{imports}\n{FASTAPI}", "requirements.txt": "fastapi\n"})
    deep = "/".join(["d" * 250] * 14)
    api.exec(ident, f"mkdir -p deep/{deep} && cd deep/{deep} && seq 20000 | xargs touch", timeout_seconds=60)

    def upload(archive: bytes) -> None:
        api.http.put("/api/v1/projects/attack", content=archive, headers={"Content-Type": "application/gzip"})

    def held_bodies() -> None:
        head = (
            "POST /api/v1/test-results/junit HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {api.token}\r\nContent-Length: 16777210\r\n\r\n"
        ).encode()
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10))
                with contextlib.suppress(OSError):
                    sock.sendall(head + b"x" * 1_000_000)
            time.sleep(0.5)

    xml = {"Content-Type": "application/xml"}
    return {
        "reports with slow failures": lambda: api.http.post("/api/v1/test-results/junit", content=report, headers=xml),
        "deep keys in TOML": lambda: upload(toml),
        "many files and imports": lambda: upload(detection),
        "listing a large folder": lambda: api.http.get(
            f"{SESSIONS}/{ident}/files", params={"path": "deep", "depth": 20}
        ),
        "bodies that do not end": held_bodies,
        "commands that print": lambda: api.exec(ident, "head -c 900000 /dev/zero | tr '\\0' x"),
    }


def _measure(name: str, attack: Attack, other: Api) -> None:
    quiet: list[float] = []
    attacked: list[float] = []
    for number in range(ROUNDS):
        if number % 2:
            with _going_on(attack):
                attacked += _requests(other)
        else:
            quiet += _requests(other)
    print_ratio(f"{name}: p99 attacked / quiet", _p99(attacked) / _p99(quiet), "under 2")


@contextlib.contextmanager
def _going_on(attack: Attack) -> Iterator[None]:
    """Repeat the attack, four at once, for the block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            with contextlib.suppress(httpx.TransportError, AssertionError):
                attack()

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    yield
    over.set()
    for thread in threads:
        thread.join()


def _requests(api: Api) -> list[float]:
    durations = []
    end = time.monotonic() + ROUND_SECONDS
    while time.monotonic() < end:
        start = time.perf_counter()
        api.http.get(SESSIONS).raise_for_status()
        durations.append(time.perf_counter() - start)
        time.sleep(PAUSE_SECONDS)
    return durations


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _launches(attacker: Api, other: Api) -> None:
    """A blank session of one user, alone and while eight launches of another one install."""

    def blank() -> float:
        start = time.perf_counter()
        session, _ = other.launch()
        took = time.perf_counter() - start
        other.end(session["session_id"])
        return took

    blank()
    alone = [blank() for _ in range(5)]
    attacker.upload("slow", {"sandbox.toml": SLOW})
    launched = [attacker.create(project_id="slow")["session_id"] for _ in range(INSTALLS)]
    deadline = time.monotonic() + 60
    while any(attacker.get(ident)["pipeline_stage"] != "workspace" for ident in launched[:4]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    beside = [blank() for _ in range(5)]
    for ident in launched:
        attacker.end(ident)
    print_ratio("blank session beside 8 installs / alone, p50", p50(sorted(beside)) / p50(sorted(alone)), "under 1.5")


if __name__ == "__main__":
    main()
