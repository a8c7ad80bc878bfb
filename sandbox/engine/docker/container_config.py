"""The request that creates a container. Every measure that isolates sandboxed code is set here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from sandbox.domain.plan import BLANK_ROLE
from sandbox.engine import labels
from sandbox.engine.base import ContainerSpec
from sandbox.errors import InvalidInput
from sandbox.settings import SeccompProfile

#: Folder of the container with the guest agent's socket. Only root may enter it, so sandboxed code cannot reach the
#: socket.
GUEST_FOLDER = "/run/sandbox-agent"
GUEST_SOCKET = "agent.sock"
WORKSPACE = "/workspace"

#: The uids of sessions: above those of accounts and of most user namespaces, and at most seven octal digits, because
#: archives in the old format of tar have no room for more.
_FIRST_USER, _LAST_USER = 200_000, 0o7_777_777
#: Capabilities that the guest agent needs to run commands as another user, to end them and to manage their files. The
#: commands themselves have none.
_GUEST_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]

_SHM_BYTES = 256 << 20
_PROFILE = Path(__file__).with_name("seccomp.json")

#: Variables that the C library obeys when a program starts.
_LOADER_VARIABLES = frozenset({"GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"})


def container_config(
    spec: ContainerSpec,
    *,
    deployment_id: UUID,
    network: str,
    environment: Mapping[str, str],
    guest_folder: Path | None,
    oci_runtime: str | None,
    ipv6_loopback: bool,
    host_entries: Sequence[str] = (),
    seccomp: SeccompProfile = "own",
) -> dict[str, Any]:
    """Return the body of the engine's create call. Command and entrypoint come from the image, which runs the guest
    agent.

    Args:
        environment: The host's settings (proxy, certificates, package indexes). Variables of `spec.env` override them.
        guest_folder: The host's folder for the guest agent's socket. None if the engine cannot share one.
        oci_runtime: The engine's runtime to use. None is its default.
        ipv6_loopback: Whether to enable the address ::1 in the container, for which the engine's kernel needs IPv6.
        host_entries: Lines for `/etc/hosts`, as `name:address`.
        seccomp: The filter of system calls: the one of this package, or the engine's default.

    Raises:
        InvalidInput: `env_refused` if `spec.env` sets a variable that the guest agent's own process would obey.
    """
    _check_environment(spec.env)
    return {
        "Image": spec.image,
        # Added to the entrypoint of the image, which is the guest agent.
        "Cmd": ["--account-uid", str(user_number(spec.origin[0]))],
        # One of the pool has the name of a blank session's role.
        "Hostname": BLANK_ROLE if spec.role == labels.POOL_ROLE else spec.role,
        # The guest agent starts as root, whichever user the image sets. It runs commands as the unprivileged user.
        "User": "0:0",
        "Env": [f"{name}={value}" for name, value in {**environment, **spec.env}.items()],
        "Labels": labels.resource_labels(deployment_id, *spec.origin) | {labels.RUNTIME: spec.runtime},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_host_config(spec, network, guest_folder, oci_runtime, ipv6_loopback, seccomp),
            "ExtraHosts": list(host_entries),
            "Mounts": list(_mounts(spec, deployment_id, guest_folder)),
        },
        "NetworkingConfig": {
            # On the shared network the role is no unique name, because every session has the same roles.
            "EndpointsConfig": {network: {"Aliases": [spec.role] if spec.network is not None else []}}
        },
    }


def fingerprint(spec: ContainerSpec, **options: Any) -> str:
    """Return a digest of `container_config` without what can be changed later: whose it is, environment and memory."""
    anyone = replace(spec, session_id=UUID(int=0), role=labels.POOL_ROLE, env={}, member=None)
    config = container_config(anyone, **options)
    for name in ("Memory", "MemorySwap"):
        del config["HostConfig"][name]
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def user_number(session_id: UUID) -> int:
    """Return the uid of the session's processes, which follows from its id, or from that of the pool's container.

    The kernel limits some resources by user, so two sessions should not have the same one. Of 200 sessions, two have it
    with a probability of one percent, and share those limits then; they cannot reach each other all the same.
    """
    return _FIRST_USER + session_id.int % (_LAST_USER - _FIRST_USER + 1)


def _host_config(
    spec: ContainerSpec,
    network: str,
    guest_folder: Path | None,
    oci_runtime: str | None,
    ipv6_loopback: bool,
    seccomp: SeccompProfile,
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": network,
        # Kernels of other runtimes, such as an older gVisor, let only process 1 adopt orphans: the guest agent there.
        "Init": oci_runtime is None,
        "CapDrop": ["ALL"],
        "CapAdd": _GUEST_CAPABILITIES,
        "SecurityOpt": ["no-new-privileges:true", *([f"seccomp={_own_profile()}"] if seccomp == "own" else [])],
        "Privileged": False,
        "IpcMode": "private",
        # Browsers and worker processes of data tools use more than the 64 MiB that engines give. It counts as memory.
        "ShmSize": min(_SHM_BYTES, spec.limits.memory_bytes // 2),
        "PublishAllPorts": False,
        "PidsLimit": spec.limits.pids,
        "Memory": spec.limits.memory_bytes,
        # This is the sum of memory and swap, so the container gets no swap.
        "MemorySwap": spec.limits.memory_bytes,
        "NanoCpus": int(spec.limits.cpus * 1_000_000_000),
        # If the host runs out of memory, the kernel kills a sandbox before the service or the database.
        "OomScoreAdj": 500,
        "Ulimits": [
            # This is the most that an engine without CAP_SYS_RESOURCE can grant, and enough for the file watchers of a
            # development server.
            {"Name": "nofile", "Soft": 16_384, "Hard": 16_384},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
        "RestartPolicy": {"Name": "no"},
    }
    if guest_folder is None:
        config["Tmpfs"] = {GUEST_FOLDER: "mode=0700,size=1m"}
    if ipv6_loopback:
        # Engines before version 26 disable ::1 with the rest of IPv6, although /etc/hosts maps localhost to it.
        config["Sysctls"] = {"net.ipv6.conf.lo.disable_ipv6": "0"}
    if oci_runtime is not None:
        config["Runtime"] = oci_runtime
    if spec.limits.disk_bytes:
        config["StorageOpt"] = {"size": str(spec.limits.disk_bytes)}
    return config


@cache
def _own_profile() -> str:
    """The profile in one line: the engine's API takes its content, not a path."""
    return json.dumps(json.loads(_PROFILE.read_text()), separators=(",", ":"))


def _mounts(spec: ContainerSpec, deployment_id: UUID, guest_folder: Path | None) -> Iterator[dict[str, Any]]:
    yield _workspace(spec, deployment_id)
    if guest_folder is not None:
        yield {"Type": "bind", "Source": str(guest_folder), "Target": GUEST_FOLDER}


def _workspace(spec: ContainerSpec, deployment_id: UUID) -> dict[str, Any]:
    """Return the mount of the `/workspace` volume. The create call creates the volume with these labels if it does not
    exist. It outlives the container."""
    options: dict[str, Any] = {"Labels": labels.resource_labels(deployment_id, *spec.origin)}
    if spec.limits.disk_bytes:
        options["DriverConfig"] = {"Name": "local", "Options": {"size": str(spec.limits.disk_bytes)}}
    return {
        "Type": "volume",
        "Source": spec.volume,
        "Target": WORKSPACE,
        "VolumeOptions": options,
    }


def _check_environment(env: Mapping[str, str]) -> None:
    """Raise InvalidInput for variables that make the dynamic loader load other code.

    The container's environment is also the environment of the guest agent, which runs as root. With such a variable,
    the sandbox's code would run as root after the next start.
    """
    refused = sorted(name for name in env if name.startswith("LD_") or name in _LOADER_VARIABLES)
    if refused:
        raise InvalidInput(
            f"{', '.join(refused)} cannot be set for a whole container",
            code="env_refused",
            hint="set it in the command that needs it, such as `LD_PRELOAD=... npm start`",
        )
