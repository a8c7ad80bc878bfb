"""Resolution of the service's URL and the caller's token."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.client import SandboxError, resolve


def test_defaults(tmp_path: Path) -> None:
    config = resolve(environ={"SANDBOX_HOME": str(tmp_path)})
    assert (config.base_url, config.token, config.headers) == ("http://127.0.0.1:8000", None, {})


def test_arguments_override_the_environment() -> None:
    env = {"SANDBOX_URL": "http://a:1", "SANDBOX_TOKEN": "env"}
    config = resolve("https://b/", "given", env)
    assert (config.base_url, config.headers) == ("https://b", {"Authorization": "Bearer given"})
    assert config.websocket_url == "wss://b"


def test_the_port_is_read_from_the_environment(tmp_path: Path) -> None:
    assert resolve(environ={"SANDBOX_PORT": "9000", "SANDBOX_HOME": str(tmp_path)}).base_url == "http://127.0.0.1:9000"


def test_the_authority_of_a_service_on_this_machine_is_trusted_and_no_other(tmp_path: Path) -> None:
    env = {"SANDBOX_HOME": str(tmp_path), "SANDBOX_TLS": "internal", "SANDBOX_PORT": "9000"}
    assert (resolve(environ=env).base_url, resolve(environ=env).authority) == ("https://127.0.0.1:9000", None)
    root = tmp_path / "edge-9000" / "storage" / "pki" / "authorities" / "local" / "root.crt"
    root.parent.mkdir(parents=True)
    root.touch()
    assert resolve(environ=env).authority == root
    assert resolve("https://elsewhere.example:9000", environ=env).authority is None
    assert resolve("http://127.0.0.1:9000", environ=env).authority is None


def test_the_data_folders_token_is_sent_to_loopback_addresses_only(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("from-file\n")
    env = {"SANDBOX_HOME": str(tmp_path)}
    assert resolve(environ=env).token == "from-file"
    assert resolve("http://localhost:1", environ=env).token == "from-file"
    assert resolve("http://[::1]:1", environ=env).token == "from-file"
    assert resolve("https://sandbox.example.com", environ=env).token is None
    assert resolve(environ={**env, "SANDBOX_ADMIN_TOKEN": "admin"}).token == "admin"
    assert resolve("https://sandbox.example.com", environ={"SANDBOX_ADMIN_TOKEN": "admin"}).token is None


def test_the_token_is_not_in_the_repr() -> None:
    assert "hidden" not in repr(resolve("http://a", "hidden", {}))


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8000", "http://"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(SandboxError, match="not an HTTP URL"):
        resolve(url, environ={})
