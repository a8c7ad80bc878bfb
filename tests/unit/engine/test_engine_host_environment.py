"""Which of this machine's network settings are passed to containers."""

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


def test_without_settings_nothing_is_passed(tmp_path: Path) -> None:
    assert read(tmp_path, PATH="/bin", AWS_SECRET_ACCESS_KEY="x") == HostPassthrough()


def test_proxies_are_passed_in_upper_and_lower_case_with_no_proxy(tmp_path: Path) -> None:
    env = read(tmp_path, https_proxy="http://proxy.example:3128", NO_PROXY="internal.example").env
    assert env == {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "https_proxy": "http://proxy.example:3128",
        # Requests to the app's own server and to the guest agent must not use a proxy.
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
def test_unusable_and_secret_settings_are_left_out_with_a_note(
    tmp_path: Path, name: str, url: str, reason: str
) -> None:
    passed = read(tmp_path, **{name: url})
    assert passed.env == {}
    assert [note for note in passed.notes if name in note and reason in note]
    assert "s3cret" not in repr(passed)


def test_the_index_of_pip_is_also_set_for_uv(tmp_path: Path) -> None:
    index = "https://index.example/simple"
    assert read(tmp_path, PIP_INDEX_URL=index).env == {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
    assert read(tmp_path, UV_INDEX_URL=index).env == {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}


def test_only_the_local_folders_among_extra_indexes_are_dropped(tmp_path: Path) -> None:
    passed = read(tmp_path, PIP_EXTRA_INDEX_URL="file:///opt/simple https://extra.example/simple")
    assert passed.env == {"PIP_EXTRA_INDEX_URL": "https://extra.example/simple"}


def test_the_configuration_files_of_the_tools_are_read(tmp_path: Path) -> None:
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
        "COREPACK_NPM_REGISTRY": "https://npm.example",
    }
    assert "s3cret" not in repr(passed)


def test_an_invalid_configuration_file_is_ignored(tmp_path: Path) -> None:
    put(tmp_path / "home/.config/pip/pip.conf", "index-url = without a section")
    put(tmp_path / "home/.config/uv/uv.toml", "= broken")
    assert read(tmp_path) == HostPassthrough()


def test_each_certificate_is_included_once(tmp_path: Path) -> None:
    full = put(tmp_path / "full.pem", certificate("A") + "a comment\n" + certificate("B"))
    extra = put(tmp_path / "extra.pem", certificate("B") + certificate("C"))
    passed = read(tmp_path, SSL_CERT_FILE=str(full), PIP_CERT=str(full), NODE_EXTRA_CA_CERTS=str(extra))
    assert passed.ca_bundle == "".join(map(certificate, "ABC")).encode()
    assert set(passed.env.values()) == {CA_BUNDLE_PATH}
    assert {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"} <= set(passed.env)


def test_an_extra_certificate_is_added_to_the_systems(tmp_path: Path) -> None:
    put(tmp_path / "root/etc/ssl/certs/ca-certificates.crt", certificate("system"))
    extra = put(tmp_path / "extra.pem", certificate("own"))
    assert (
        read(tmp_path, NODE_EXTRA_CA_CERTS=str(extra)).ca_bundle
        == (certificate("system") + certificate("own")).encode()
    )


def test_certificates_installed_in_the_system_are_found_without_a_variable(tmp_path: Path) -> None:
    put(tmp_path / "root/etc/ssl/certs/ca-certificates.crt", certificate("system") + certificate("own"))
    assert read(tmp_path).ca_bundle is None
    put(tmp_path / "root/usr/local/share/ca-certificates/own.crt", certificate("own"))
    assert read(tmp_path).ca_bundle == (certificate("system") + certificate("own")).encode()


def test_a_variable_that_names_no_file_gives_a_note(tmp_path: Path) -> None:
    passed = read(tmp_path, SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert passed.ca_bundle is None
    assert passed.env == {}
    assert "SSL_CERT_FILE" in passed.notes[0]
