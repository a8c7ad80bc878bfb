"""An edge with a certificate and key: what a preview's visitor and its app see of the scheme, also behind a proxy."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox.edge.configuration import edge_configuration
from sandbox.edge.folder import bind_socket
from sandbox.edge.process import EdgeProcess
from sandbox.settings import Settings
from tests.ports import reserve_port

SESSION = "0b5e1c9e-7d2f-4a57-9d1c-3f9a6f1e2b44"
GRANT = f"3000.{'k' * 22}"
HOST = f"{SESSION}.preview.localhost"
COOKIE = "__Host-app=signed-in; Secure; HttpOnly; Path=/; SameSite=Lax"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of the preview hosts that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "preview.localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.preview.localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return files


async def _app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request with its headers, a cookie of its host alone and a redirect to itself."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    body = json.dumps({name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))})
    writer.write(
        f"HTTP/1.1 200 OK\r\nSet-Cookie: {COOKIE}\r\nLocation: http://localhost:3000/there\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    await writer.drain()
    writer.close()


@pytest.fixture(params=["", "127.0.0.1/32"], ids=["visitors", "proxies"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Without proxies in front, and with one that is trusted."""
    certificate, key = make_certificate(tmp_path)
    return Settings(home=tmp_path, port=reserve_port(), tls=f"{certificate}:{key}", trusted_proxies=request.param)


@pytest.fixture
async def visitor(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a preview whose visitor has a grant. It trusts the certificate and nothing else."""
    edge = EdgeProcess(settings)
    await asyncio.to_thread(edge.ensure, edge_configuration(settings))
    grants = edge.folder.path / "grants" / SESSION[-12:]
    grants.mkdir(parents=True)
    server = await asyncio.start_unix_server(_app, sock=bind_socket(grants / f"{GRANT}.sock"))
    assert settings.tls_files is not None
    trust = ssl.create_default_context(cafile=str(settings.tls_files[0]))
    headers = {"Host": f"{HOST}:{settings.port}", "Cookie": f"__sbx_preview={GRANT}"}
    async with (
        server,
        httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{settings.port}", headers=headers, verify=trust, trust_env=False, timeout=30
        ) as client,
    ):
        yield client
    await asyncio.to_thread(edge.stop)


async def test_a_preview_with_a_certificate(settings: Settings, visitor: httpx.AsyncClient) -> None:
    claim = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    answer = await visitor.get("/", headers=claim, extensions={"sni_hostname": HOST})
    assert answer.status_code == 200, answer.text
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers["set-cookie"] == COOKIE
    assert answer.headers["location"] == f"https://{HOST}:{settings.port}/there"
    seen = answer.json()
    address = "192.0.2.1" if settings.trusted_proxies else "127.0.0.1"
    assert seen["forwarded"] == f'for="{address}";host="{HOST}:{settings.port}";proto=https'
    assert seen["x-forwarded-proto"] == "https"
