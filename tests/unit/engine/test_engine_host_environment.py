"""What of this machine's network settings reaches containers, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.engine.host_environment import CA_BUNDLE_PATH, HostPassthrough, container_environment


def certificate(name: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n"


def read(tmp_path: Path, **environ: str) -> HostPassthrough:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir(exist_ok=True)
    root.mkdir(exist_ok=True)
    return container_environment(environ, home=home, root=root)


def put(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_machine_with_nothing_set_passes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, PATH="/bin", AWS_SECRET_ACCESS_KEY="x") == HostPassthrough()


def test_proxies_are_passed_in_both_cases_with_their_exceptions(tmp_path: Path) -> None:
    env = read(tmp_path, https_proxy="http://proxy.example:3128", NO_PROXY="internal.example").env
    assert env == {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "https_proxy": "http://proxy.example:3128",
        # An app that reports, or asks its own server, does so without a proxy.
        "NO_PROXY": "internal.example,localhost,127.0.0.1,::1",
        "no_proxy": "internal.example,localhost,127.0.0.1,::1",
    }


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://someone:s3cret@proxy.example:3128", "credentials"),
        ("http://127.0.0.1:3128", "the container itself"),
        ("http://localhost:3128", "the container itself"),
        ("http://[::1]:3128", "the container itself"),
        ("file:///opt/simple", "local path"),
    ],
)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY"])
def test_what_cannot_work_or_is_secret_is_left_out_and_said(tmp_path: Path, name: str, url: str, reason: str) -> None:
    passed = read(tmp_path, **{name: url})
    assert passed.env == {}
    assert [note for note in passed.notes if name in note and reason in note]
    assert "s3cret" not in repr(passed)


def test_an_index_of_pip_is_uvs_too(tmp_path: Path) -> None:
    index = "https://index.example/simple"
    assert read(tmp_path, PIP_INDEX_URL=index).env == {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
    assert read(tmp_path, UV_INDEX_URL=index).env == {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}


def test_local_folders_among_extra_indexes_are_dropped_alone(tmp_path: Path) -> None:
    passed = read(tmp_path, PIP_EXTRA_INDEX_URL="file:///opt/simple https://extra.example/simple")
    assert passed.env == {"PIP_EXTRA_INDEX_URL": "https://extra.example/simple"}


def test_the_tools_own_files_are_read(tmp_path: Path) -> None:
    put(tmp_path / "root/etc/pip.conf", "[global]\nindex-url = https://site.example/simple\n")
    put(
        tmp_path / "home/.config/pip/pip.conf",
        "[global]\nindex_url = https://mine.example/simple\n[install]\ntrusted-host = mine.example\n",
    )
    put(tmp_path / "home/.npmrc", "//npm.example/:_authToken=s3cret\nregistry=https://npm.example/\n")
    put(tmp_path / "home/.config/uv/uv.toml", '[[index]]\nurl = "https://more.example/simple"\n')
    passed = read(tmp_path)
    assert passed.env == {
        "PIP_INDEX_URL": "https://mine.example/simple",
        "UV_DEFAULT_INDEX": "https://mine.example/simple",
        "UV_INDEX": "https://more.example/simple",
        "PIP_TRUSTED_HOST": "mine.example",
        "UV_INSECURE_HOST": "mine.example",
        "NPM_CONFIG_REGISTRY": "https://npm.example/",
    }
    assert "s3cret" not in repr(passed)


def test_a_broken_file_of_a_tool_is_as_none(tmp_path: Path) -> None:
    put(tmp_path / "home/.config/pip/pip.conf", "index-url = without a section")
    put(tmp_path / "home/.config/uv/uv.toml", "= broken")
    assert read(tmp_path) == HostPassthrough()


def test_certificates_are_gathered_once_each(tmp_path: Path) -> None:
    full = put(tmp_path / "full.pem", certificate("A") + "a comment\n" + certificate("B"))
    extra = put(tmp_path / "extra.pem", certificate("B") + certificate("C"))
    passed = read(tmp_path, SSL_CERT_FILE=str(full), PIP_CERT=str(full), NODE_EXTRA_CA_CERTS=str(extra))
    assert passed.ca_bundle == "".join(map(certificate, "ABC")).encode()
    assert set(passed.env.values()) == {CA_BUNDLE_PATH}
    assert {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"} <= set(passed.env)


def test_an_extra_certificate_alone_comes_on_top_of_the_systems(tmp_path: Path) -> None:
    put(tmp_path / "root/etc/ssl/certs/ca-certificates.crt", certificate("system"))
    extra = put(tmp_path / "extra.pem", certificate("own"))
    assert (
        read(tmp_path, NODE_EXTRA_CA_CERTS=str(extra)).ca_bundle
        == (certificate("system") + certificate("own")).encode()
    )


def test_certificates_added_to_the_system_are_found_without_a_variable(tmp_path: Path) -> None:
    put(tmp_path / "root/etc/ssl/certs/ca-certificates.crt", certificate("system") + certificate("own"))
    assert read(tmp_path).ca_bundle is None
    put(tmp_path / "root/usr/local/share/ca-certificates/own.crt", certificate("own"))
    assert read(tmp_path).ca_bundle == (certificate("system") + certificate("own")).encode()


def test_a_variable_that_names_no_file_is_said(tmp_path: Path) -> None:
    passed = read(tmp_path, SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert passed.ca_bundle is None
    assert passed.env == {}
    assert "SSL_CERT_FILE" in passed.notes[0]
