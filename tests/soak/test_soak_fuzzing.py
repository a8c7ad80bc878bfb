"""Sends hostile input to a running service (`make soak`): none may be answered with 500, and the service stays small.

SOAK_INPUTS sets the number of damaged bodies for each kind of upload, SOAK_EXAMPLES that of requests for each operation
of the API, SOAK_SEED the seed of both.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.api import Api, tar_of
from tests.acceptance.service import ADMIN_TOKEN, Service

INPUTS = int(os.environ.get("SOAK_INPUTS", "300"))
EXAMPLES = int(os.environ.get("SOAK_EXAMPLES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
SCHEMATHESIS = "schemathesis==4.32.5"
#: Streams do not end by themselves, and recovery and retention would change what other requests use.
EXCLUDED = "(events|logs|tail|/admin/recovery|retention/run)$"
MOST_MEMORY = 300 << 20

FILES = {
    "main.py": "import os\nfrom fastapi import FastAPI\napp = FastAPI()\nif os.name:\n    pass\n",
    "requirements.txt": "fastapi\n-r other.txt\n",
    "pyproject.toml": '[project]\nname = "x"\ndependencies = ["fastapi[standard]"]\n[tool.a.b.c]\nd = {e.f = 1}\n',
    "package.json": '{"scripts": {"dev": "vite"}, "dependencies": {"vite": "^5"}}',
    "sandbox.toml": '[web]\nruntime = "python312"\nstart = "python3 main.py"\nport = 8000\n',
}
JUNIT = b"""<testsuites><testsuite name="a" timestamp="2026-11-20T10:00:00Z"><testcase name="t" time="1.5">
<failure message="no">File "/a/b.py:45: AssertionError</failure><system-out>WARNING a:b.py:3 low</system-out></testcase>
</testsuite></testsuites>"""
COBERTURA = b"""<coverage><packages><package name="api"><classes><class filename="api/a.py"><lines>
<line number="1" hits="1" branch="true" condition-coverage="50% (1/2)"/></lines></class></classes></package></packages>
</coverage>"""
COVERAGE_PY = b'{"files": {"a/b.py": {"summary": {"covered_lines": 3, "num_statements": 4}}}}'
#: What parsers and the database are known to stumble over.
POISON = [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"9" * 30, b"-1", b"&#0;"]


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return out.getvalue()


def _logs() -> bytes:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.string_value, record.severity_text = "hello", "ERROR"
    return request.SerializeToString()


def _spans() -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = b"t" * 16, b"s" * 8, "work"
    return request.SerializeToString()


UPLOADS: dict[str, tuple[str, str, str, Callable[[], bytes]]] = {
    "tar": ("PUT", "/api/v1/projects/fuzzed", "application/gzip", lambda: tar_of(FILES)),
    "zip": ("PUT", "/api/v1/projects/fuzzed", "application/zip", _zip),
    "junit": ("POST", "/api/v1/test-results/junit", "application/xml", lambda: JUNIT),
    "cobertura": ("POST", "/api/v1/coverage/cobertura", "application/xml", lambda: COBERTURA),
    "coverage-py": ("POST", "/api/v1/coverage/coverage-py", "application/json", lambda: COVERAGE_PY),
    "logs": ("POST", "/v1/logs", "application/x-protobuf", _logs),
    "spans": ("POST", "/v1/traces", "application/x-protobuf", _spans),
}


def damaged(body: bytes, chance: random.Random) -> bytes:
    """The body with bytes changed, removed, repeated or inserted at some places."""
    changed = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.randint(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + chance.randint(1, 20)] * chance.randint(1, 50)
            case _:
                changed[at:at] = chance.choice(POISON)
    return bytes(changed)


def damaged_archive(chance: random.Random) -> bytes:
    """An archive that is well-formed, with a damaged file in it."""
    name = chance.choice(list(FILES))
    return tar_of({**FILES, name: damaged(FILES[name].encode(), chance)})


@pytest.fixture(scope="module")
def fuzzed(make_service: Callable[..., Service]) -> Service:
    service = make_service()
    service.start()
    return service


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", list(UPLOADS))
def test_damaged_uploads(fuzzed: Service, kind: str) -> None:
    method, path, media_type, make = UPLOADS[kind]
    chance, whole = random.Random(SEED), make()
    with closing(Api(fuzzed.url, ADMIN_TOKEN).http) as http:
        for number in range(INPUTS):
            body = damaged_archive(chance) if kind == "tar" and number % 2 else damaged(whole, chance)
            answer = http.request(method, path, content=body, headers={"Content-Type": media_type})
            assert answer.status_code < 500, (SEED, number, answer.text)
    assert fuzzed.process is not None
    assert psutil.Process(fuzzed.process.pid).memory_info().rss < MOST_MEMORY


@pytest.mark.timeout(0)
def test_all_operations_of_the_api(fuzzed: Service) -> None:
    command = [
        *(str(Path(sys.executable).with_name("uv")), "tool", "run", "--from", SCHEMATHESIS, "st", "run"),
        *(f"{fuzzed.url}/openapi.json", "--checks", "not_a_server_error", "--mode", "all"),
        *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--request-timeout", "60"),
        *("--exclude-path-regex", EXCLUDED, "--suppress-health-check", "all", "--seed", str(SEED)),
        *("-H", f"Authorization: Bearer {ADMIN_TOKEN}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
