"""Compares files through the API with a raw tar through the container engine: 10 MB each way, and 1,000 small files."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping

import docker

from tests.acceptance.api import Api
from tests.bench.measure import alternately, p50, print_durations, print_ratio
from tests.bench.service import launching_service

ROUNDS = 20
LARGE = os.urandom(10_000_000)
SMALL = {f"package{number % 40}/file{number}.js": os.urandom(750) for number in range(1000)}


def main() -> None:
    engine = docker.APIClient()
    with launching_service() as api:
        session, _ = api.launch()
        container = session["containers"]["main"]["id"]
        files = f"/api/v1/sessions/{session['session_id']}/files"
        _upload(api, engine, files, container)
        _download(api, engine, files, container)
        _many(api, engine, files, container)
    engine.close()


def _upload(api: Api, engine: docker.APIClient, files: str, container: str) -> None:
    packed = _tar({"large.bin": LARGE})
    durations = alternately(
        ROUNDS,
        api=lambda: api.http.put(files, params={"path": "large.bin"}, content=LARGE).raise_for_status(),
        docker=lambda: engine.put_archive(container, "/tmp", packed),
    )
    _print("upload of 10 MB", durations, "at least 0.6")


def _download(api: Api, engine: docker.APIClient, files: str, container: str) -> None:
    def through_api() -> None:
        assert len(api.http.get(files, params={"path": "large.bin"}).content) == len(LARGE)

    def raw() -> None:
        pieces, _ = engine.get_archive(container, "/tmp/large.bin")
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            file = tar.extractfile("large.bin")
            assert file is not None
            assert len(file.read()) == len(LARGE)

    _print("download of 10 MB", alternately(ROUNDS, api=through_api, docker=raw), "at least 0.6")


def _many(api: Api, engine: docker.APIClient, files: str, container: str) -> None:
    packed = _tar(SMALL)
    durations = alternately(
        ROUNDS,
        api=lambda: api.http.put(f"{files}/archive", params={"path": "many"}, content=packed).raise_for_status(),
        docker=lambda: engine.put_archive(container, "/tmp", packed),
    )
    _print("1,000 small files in one request", durations, "(for comparison)")


def _print(what: str, durations: dict[str, list[float]], target: str) -> None:
    print_durations(f"{what} through the API", durations["api"])
    print_durations(f"{what} through the engine", durations["docker"])
    print_ratio("speed of the API / of the engine", p50(durations["docker"]) / p50(durations["api"]), target)


def _tar(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()
