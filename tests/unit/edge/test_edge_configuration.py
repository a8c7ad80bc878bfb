"""The edge's configuration, as it is made from settings."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sandbox.edge.configuration import edge_configuration
from sandbox.edge.program import EdgeUnavailable, find_program
from sandbox.settings import Settings


@pytest.mark.parametrize("tls", ["off", "internal"])
def test_caddy_accepts_the_configuration(tmp_path: Path, tls: str) -> None:
    settings = Settings(home=tmp_path, tls=tls)
    program, _ = find_program(settings)
    file = tmp_path / "caddy.json"
    file.write_text(json.dumps(edge_configuration(settings)))
    command = [str(program), "validate", "--config", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("host", "listens"), [("127.0.0.1", "127.0.0.1:8123"), ("::1", "[::1]:8123")])
def test_the_edge_listens_where_the_settings_say(host: str, listens: str) -> None:
    configuration = edge_configuration(Settings(host=host, port=8123))
    assert configuration["apps"]["http"]["servers"]["edge"]["listen"] == [listens, "unix/local.sock|0600"]


def test_a_program_that_is_too_old_is_refused_by_its_version(tmp_path: Path) -> None:
    program = tmp_path / "caddy"
    program.write_text("#!/bin/sh\necho v2.6.2 h1:abc\n")
    program.chmod(0o755)
    with pytest.raises(EdgeUnavailable, match=r"v2\.6\.2"):
        find_program(Settings(edge_program=program))


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeUnavailable, match="nowhere"):
        find_program(Settings(edge_program=tmp_path / "nowhere"))


def test_with_tls_previews_are_https_unless_another_scheme_is_set() -> None:
    assert Settings(tls="internal").public_scheme == "https"
    assert Settings(tls="internal", public_scheme="http").public_scheme == "http"
    assert Settings().public_scheme == "http"


def test_acme_needs_a_program_with_the_module_of_the_dns_provider(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="tls_dns"):
        Settings(tls="acme")
    settings = Settings(tls="acme", tls_dns='{"name": "cloudflare", "api_token": "x"}', preview_domain="apps.example")
    with pytest.raises(EdgeUnavailable, match=r"dns\.providers\.cloudflare"):
        find_program(settings)
    program = tmp_path / "caddy"
    program.write_text('#!/bin/sh\n[ "$1" = version ] && echo v2.11.7 || echo dns.providers.cloudflare\n')
    program.chmod(0o755)
    assert find_program(settings.model_copy(update={"edge_program": program}))[0] == program
    tls = edge_configuration(settings)["apps"]["tls"]
    assert tls["certificates"]["automate"] == ["apps.example", "*.apps.example"]
    assert tls["automation"]["policies"][0]["issuers"][0]["challenges"]["dns"]["provider"]["api_token"] == "x"


@pytest.mark.parametrize(("tls", "strict"), [("off", False), ("internal", False), ("a.pem:b.pem", True)])
def test_only_certificates_that_browsers_trust_bind_them_to_https(tls: str, strict: bool) -> None:
    assert ("Strict-Transport-Security" in json.dumps(edge_configuration(Settings(tls=tls)))) is strict


@pytest.mark.parametrize("setting", ["on", ""])
def test_other_values_of_tls_are_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match="must be off, internal"):
        Settings(tls=setting)


def test_named_proxies_are_trusted_and_no_others() -> None:
    def server(settings: Settings) -> dict[str, Any]:
        return edge_configuration(settings)["apps"]["http"]["servers"]["edge"]

    ranges = server(Settings(trusted_proxies="10.0.0.0/8, 192.0.2.1"))["trusted_proxies"]["ranges"]
    assert ranges == ["10.0.0.0/8", "192.0.2.1"]
    assert "trusted_proxies" not in server(Settings())
    with pytest.raises(ValidationError):
        Settings(trusted_proxies="somewhere")
