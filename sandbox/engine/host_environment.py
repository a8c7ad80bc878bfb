"""This machine's network settings that the containers need, too: proxies, package indexes, extra CA certificates.

They are read from the environment and from the configuration files of pip, uv and npm. Settings that cannot work in a
container (a loopback address, a local folder) or must not be visible there (a password) are left out, with a note.
"""

from __future__ import annotations

import configparser
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Path of the CA bundle in the images, if this machine has certificates of its own.
CA_BUNDLE_PATH = "/usr/local/share/ca-certificates-host.crt"

_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_EXTRA_CERTIFICATES = "/usr/local/share/ca-certificates"
_FULL_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
_EXTRA_BUNDLE_VARIABLES = ("NODE_EXTRA_CA_CERTS",)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY")
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_CERTIFICATE_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class HostPassthrough:
    """The settings that are passed on to image builds and containers."""

    #: Environment variables of builds and containers. They are not stored in images.
    env: dict[str, str] = field(default_factory=dict)
    #: Certificates in PEM format that images contain at `CA_BUNDLE_PATH`. None if this machine has none of its own.
    ca_bundle: bytes | None = None
    #: What was left out and why, in sentences for the user. They contain no password.
    notes: tuple[str, ...] = ()


def container_environment(
    environ: Mapping[str, str] | None = None, *, home: Path | None = None, root: Path = Path("/")
) -> HostPassthrough:
    """Read this machine's settings. Tests pass `environ`, `home` and `root` in place of the real ones."""
    environ = os.environ if environ is None else environ
    home = home or Path.home()
    notes: list[str] = []
    env: dict[str, str] = {}
    for name, value in _proxies(environ).items():
        if _usable(name, value, notes):
            env[name] = env[name.lower()] = value
    if env:
        env["NO_PROXY"] = env["no_proxy"] = _without_proxy(environ)
    for name, value in _indexes(environ, home, root).items():
        usable = " ".join(url for url in value.split() if _usable(name, url, notes))
        if usable:
            env[name] = usable
    if "NPM_CONFIG_REGISTRY" in env:
        # Corepack downloads pnpm and yarn, and does not read npm's setting.
        env["COREPACK_NPM_REGISTRY"] = env["NPM_CONFIG_REGISTRY"].rstrip("/")
    if env.get("PIP_INDEX_URL") and "UV_DEFAULT_INDEX" not in env:
        env["UV_DEFAULT_INDEX"] = env["PIP_INDEX_URL"]
    if env.get("UV_DEFAULT_INDEX") and "PIP_INDEX_URL" not in env:
        env["PIP_INDEX_URL"] = env["UV_DEFAULT_INDEX"]
    trusted = _first(environ.get("PIP_TRUSTED_HOST"), _pip(environ, home, root).get("trusted-host"))
    if trusted:
        env["PIP_TRUSTED_HOST"] = env["UV_INSECURE_HOST"] = " ".join(trusted.split())
    bundle = _ca_bundle(environ, root, notes)
    if bundle is not None:
        env |= dict.fromkeys((*_FULL_BUNDLE_VARIABLES, *_EXTRA_BUNDLE_VARIABLES), CA_BUNDLE_PATH)
    return HostPassthrough(env=env, ca_bundle=bundle, notes=tuple(dict.fromkeys(notes)))


def _first(*values: str | None) -> str | None:
    return next((value for value in values if value), None)


def _either_case(environ: Mapping[str, str], name: str) -> str | None:
    return _first(environ.get(name), environ.get(name.lower()))


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in _PROXIES if (value := _either_case(environ, name))}


def _without_proxy(environ: Mapping[str, str]) -> str:
    """Return the value of NO_PROXY: this machine's own, and the container's loopback."""
    given = (_either_case(environ, "NO_PROXY") or "").split(",")
    hosts = [*(host.strip() for host in given), "localhost", "127.0.0.1", "::1"]
    return ",".join(dict.fromkeys(host for host in hosts if host))


def _indexes(environ: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """Return the URLs of package indexes by the variable that sets them. Several URLs are separated by spaces."""
    pip, uv, npm = _pip(environ, home, root), _uv(environ, home, root), _npmrc(environ, home, root)
    found = {
        "PIP_INDEX_URL": _first(environ.get("PIP_INDEX_URL"), pip.get("index-url")),
        "PIP_EXTRA_INDEX_URL": _first(environ.get("PIP_EXTRA_INDEX_URL"), pip.get("extra-index-url")),
        "UV_DEFAULT_INDEX": _first(
            environ.get("UV_DEFAULT_INDEX"), environ.get("UV_INDEX_URL"), uv.get("default-index")
        ),
        "UV_INDEX": _first(environ.get("UV_INDEX"), environ.get("UV_EXTRA_INDEX_URL"), uv.get("index")),
        "NPM_CONFIG_REGISTRY": _first(_either_case(environ, "NPM_CONFIG_REGISTRY"), npm.get("registry")),
    }
    return {name: value for name, value in found.items() if value}


def _usable(name: str, url: str, notes: list[str]) -> bool:
    """Return whether a URL works in a container and contains no credentials. If not, add a note."""
    # An index of uv may have a name: `name=url`.
    bare = url.split("=", 1)[1] if "=" in url.split("://", 1)[0] else url
    parts = urlsplit(bare if "://" in bare else f"http://{bare}")
    if parts.scheme not in {"http", "https", "socks4", "socks5", "socks5h"} or not parts.hostname:
        notes.append(f"{name}: a local path is left out because containers cannot reach it")
        return False
    if parts.username or parts.password:
        notes.append(
            f"{name}: {parts.hostname} is left out because its URL contains credentials that sandboxed code would see"
        )
        return False
    if _is_loopback(parts.hostname):
        notes.append(f"{name}: {parts.hostname} is left out because inside a container it is the container itself")
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        # The tool itself runs as this user, so it cannot read its configuration either.
        return ""


def _pip(environ: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """Return the options in pip's files. Later files override earlier ones, and `[install]` overrides `[global]`."""
    files = [
        _below(root, "/etc/xdg/pip/pip.conf"),
        _below(root, "/etc/pip.conf"),
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
    ]
    if environ.get("PIP_CONFIG_FILE"):
        files.append(Path(environ["PIP_CONFIG_FILE"]))
    options: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_read(file))
        except configparser.Error:
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return options


def _uv(environ: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """Return the package indexes in uv's files."""
    files = [_below(root, "/etc/uv/uv.toml"), home / ".config/uv/uv.toml"]
    if environ.get("UV_CONFIG_FILE"):
        files.append(Path(environ["UV_CONFIG_FILE"]))
    options: dict[str, str] = {}
    for file in files:
        try:
            content: dict[str, Any] = tomllib.loads(_read(file))
        except tomllib.TOMLDecodeError:
            continue
        extra = [str(url) for url in content.get("extra-index-url", [])]
        for index in content.get("index", []):
            if index.get("default"):
                options["default-index"] = str(index.get("url", ""))
            else:
                extra.append(str(index.get("url", "")))
        if "index-url" in content:
            options["default-index"] = str(content["index-url"])
        if extra:
            options["index"] = " ".join(extra)
    return options


def _npmrc(environ: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """Return the registry that npm's files set. Their tokens are not read."""
    user_file = Path(environ.get("NPM_CONFIG_USERCONFIG") or home / ".npmrc")
    options: dict[str, str] = {}
    for file in (_below(root, "/etc/npmrc"), _below(root, "/usr/etc/npmrc"), user_file):
        for line in _read(file).splitlines():
            key, equals, value = line.partition("=")
            if equals and key.strip() == "registry":
                options["registry"] = value.strip().strip("\"'")
    return options


def _ca_bundle(environ: Mapping[str, str], root: Path, notes: list[str]) -> bytes | None:
    """Return all certificates that this machine trusts, each once, or None if none of them is its own."""
    full = _named_files(environ, _FULL_BUNDLE_VARIABLES, notes)
    extra = _named_files(environ, _EXTRA_BUNDLE_VARIABLES, notes)
    installed = _below(root, _EXTRA_CERTIFICATES)
    has_installed = installed.is_dir() and any(installed.rglob("*.crt"))
    if not (full or extra or has_installed):
        return None
    if not full:
        full = [path for path in (_below(root, p) for p in _SYSTEM_BUNDLES) if path.is_file()][:1]
    certificates: dict[str, None] = {}
    for path in (*full, *extra):
        for certificate in _certificates(path):
            certificates[certificate] = None
    return "".join(f"{certificate}\n" for certificate in certificates).encode() if certificates else None


def _named_files(environ: Mapping[str, str], names: tuple[str, ...], notes: list[str]) -> list[Path]:
    paths: dict[Path, None] = {}
    for name in names:
        if value := environ.get(name):
            path = Path(value)
            if path.is_file():
                paths[path.resolve()] = None
            else:
                notes.append(f"{name}: the file does not exist, so its certificates are left out")
    return list(paths)


def _certificates(path: Path) -> list[str]:
    blocks = _read(path).split(_CERTIFICATE)[1:]
    return [
        f"{_CERTIFICATE}{block.split(_CERTIFICATE_END)[0].rstrip()}\n{_CERTIFICATE_END}"
        for block in blocks
        if _CERTIFICATE_END in block
    ]
