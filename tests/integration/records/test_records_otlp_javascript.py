"""The OTLP intake with the OpenTelemetry SDK for JavaScript."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = (
    "@opentelemetry/api@1.9.1",
    "@opentelemetry/api-logs@0.223.1",
    "@opentelemetry/exporter-logs-otlp-http@0.223.1",
    "@opentelemetry/exporter-trace-otlp-http@0.223.1",
    "@opentelemetry/exporter-trace-otlp-proto@0.223.1",
    "@opentelemetry/resources@2.12.1",
    "@opentelemetry/sdk-logs@0.223.1",
    "@opentelemetry/sdk-trace-base@2.12.1",
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copy(Path(__file__).with_name("export.mjs"), folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "export.mjs"


async def test_the_javascript_sdk_exports_spans_and_logs(script, server, ada):
    process = await asyncio.create_subprocess_exec(
        "node", str(script), server, ada.headers["x-api-key"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    for name, trace_id in json.loads(out).items():
        (root,) = (await ada.get(f"/api/v1/traces/{trace_id}")).json()["spans"]
        assert (root["service_name"], root["operation_name"], root["status"]) == (f"js-{name}", "order", "success")
        assert (root["tags"]["http.method"], root["tags"]["items"]) == ("GET", [1, 2])
        (child,) = root["children"]
        assert (child["status"], child["tags"]["error.message"]) == ("error", "no card")
        assert child["logs"][0]["message"] == "card is undefined"
    (line,) = (await ada.get("/api/v1/logs", params={"service": "js-logs"})).json()["items"]
    assert (line["level"], line["message"], line["metadata"]["item"]) == ("WARNING", "low stock", "nut")
