"""A container as the engine is asked for it: every measure that keeps sandboxed code in, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from sandbox.engine import labels
from sandbox.engine.base import ContainerSpec
from sandbox.errors import InvalidInput

#: Where the guest agent listens in the container. Root's alone, so that sandboxed code cannot reach the socket.
GUEST_FOLDER = "/run/sandbox-agent"
GUEST_SOCKET = "agent.sock"
WORKSPACE = "/workspace"

#: What the guest agent needs to start commands as another user, end them and keep their files; commands have none of
#: it.
_GUEST_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]

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
) -> dict[str, Any]:
    """The body of the engine's create call. Command and entrypoint are the image's: the agent.

    `environment` is the host's (proxy, certificates, package indexes); the caller's own variables win over it.
    `agent_folder` is the host's folder for the guest agent's socket; None where the engine cannot share one.
    `ipv6_loopback` gives the container a ::1, which the engine's kernel must be able to. InvalidInput `env_refused`
    for a variable that the guest agent's own process would obey.
    """
    _check_environment(spec.env)
    return {
        "Image": spec.image,
        "Hostname": spec.role,
        # The guest agent starts as root whatever the image says; it runs commands as the unprivileged user.
        "User": "0:0",
        "Env": [f"{name}={value}" for name, value in {**environment, **spec.env}.items()],
        "Labels": labels.resource_labels(deployment_id, spec.session_id, spec.role) | {labels.RUNTIME: spec.runtime},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, deployment_id, network, guest_folder, oci_runtime, ipv6_loopback),
        "NetworkingConfig": {
            # On the shared bridge a role is no name: every session has the same ones.
            "EndpointsConfig": {network: {"Aliases": [spec.role] if spec.network is not None else []}}
        },
    }


def _host_config(
    spec: ContainerSpec,
    deployment_id: UUID,
    network: str,
    guest_folder: Path | None,
    oci_runtime: str | None,
    ipv6_loopback: bool,
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": network,
        "Init": True,
        "CapDrop": ["ALL"],
        "CapAdd": _GUEST_CAPABILITIES,
        # Seccomp stays the engine's default profile, which naming nothing here gives.
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": False,
        "IpcMode": "private",
        "PublishAllPorts": False,
        "PidsLimit": spec.limits.pids,
        "Memory": spec.limits.memory_bytes,
        # The sum of memory and swap: none of it may be swap.
        "MemorySwap": spec.limits.memory_bytes,
        "NanoCpus": int(spec.limits.cpus * 1_000_000_000),
        # When the host itself runs short, a sandbox goes before the service or the database.
        "OomScoreAdj": 500,
        "Ulimits": [
            # No more than an engine without CAP_SYS_RESOURCE can grant, enough for a development server's watchers.
            {"Name": "nofile", "Soft": 16_384, "Hard": 16_384},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
        "RestartPolicy": {"Name": "no"},
        "Mounts": [_workspace(spec, deployment_id)],
    }
    if guest_folder is not None:
        config["Mounts"].append({"Type": "bind", "Source": str(guest_folder), "Target": GUEST_FOLDER})
    else:
        config["Tmpfs"] = {GUEST_FOLDER: "mode=0700,size=1m"}
    if ipv6_loopback:
        # Engines before 26 take ::1 away with the rest of IPv6, though /etc/hosts calls it localhost.
        config["Sysctls"] = {"net.ipv6.conf.lo.disable_ipv6": "0"}
    if oci_runtime is not None:
        config["Runtime"] = oci_runtime
    return config


def _workspace(spec: ContainerSpec, deployment_id: UUID) -> dict[str, Any]:
    """The named volume, made with its labels by the create call itself; it outlives the container."""
    return {
        "Type": "volume",
        "Source": labels.container_name(spec.session_id, spec.role),
        "Target": WORKSPACE,
        "VolumeOptions": {"Labels": labels.resource_labels(deployment_id, spec.session_id, spec.role)},
    }


def _check_environment(env: Mapping[str, str]) -> None:
    """The container's environment is also the guest agent's, and the guest agent is root: nothing in it may tell the
    loader what to load, or a restart would run the sandbox's code as root."""
    refused = sorted(name for name in env if name.startswith("LD_") or name in _LOADER_VARIABLES)
    if refused:
        raise InvalidInput(
            f"{', '.join(refused)} cannot be set for a whole container",
            code="env_refused",
            hint="set it in the command that needs it, such as `LD_PRELOAD=... npm start`",
        )
