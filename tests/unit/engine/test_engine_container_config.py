"""The body of the create call contains all isolation measures, and nothing that weakens them."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from sandbox.engine.base import ContainerSpec, Limits
from sandbox.engine.docker.container_config import container_config
from sandbox.errors import InvalidInput

DEPLOYMENT = UUID(int=1)
SPEC = ContainerSpec(
    session_id=UUID(int=2),
    role="backend",
    image="purple8/python312:1",
    runtime="python312",
    network="sbx-own",
    limits=Limits(memory_bytes=512 << 20, cpus=1.5, pids=100),
    env={"A": "caller"},
)


def config(spec=SPEC, guest_folder=Path("/home/run/x/backend"), ipv6_loopback=False):
    return container_config(
        spec,
        deployment_id=DEPLOYMENT,
        network=spec.network or "sbx-shared",
        environment={"A": "host", "B": "host"},
        guest_folder=guest_folder,
        oci_runtime=None,
        ipv6_loopback=ipv6_loopback,
    )


def test_only_the_guest_agents_capabilities_are_added():
    host = config()["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert set(host["CapAdd"]) == {"SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE", "FOWNER"}
    assert [option.partition("=")[0] for option in host["SecurityOpt"]] == ["no-new-privileges:true", "seccomp"]
    assert host["Privileged"] is False
    assert host["ShmSize"] == min(256 << 20, host["Memory"] // 2)


def test_limits_use_the_engines_units_and_disable_swap():
    host = config()["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        536_870_912,
        536_870_912,
        1_500_000_000,
        100,
    )


def test_only_the_volume_and_the_socket_folder_are_mounted():
    assert [(m["Type"], m["Source"], m["Target"]) for m in config()["HostConfig"]["Mounts"]] == [
        ("volume", f"sbx-{SPEC.session_id.hex}-backend", "/workspace"),
        ("bind", "/home/run/x/backend", "/run/sandbox-agent"),
    ]


def test_without_a_shared_folder_the_socket_is_in_a_private_tmpfs():
    host = config(guest_folder=None)["HostConfig"]
    assert [m["Target"] for m in host["Mounts"]] == ["/workspace"]
    assert host["Tmpfs"] == {"/run/sandbox-agent": "mode=0700,size=1m"}


def test_only_the_ipv6_loopback_sysctl_is_set():
    assert "Sysctls" not in config()["HostConfig"]
    assert config(ipv6_loopback=True)["HostConfig"]["Sysctls"] == {"net.ipv6.conf.lo.disable_ipv6": "0"}


def test_the_specs_variables_override_the_hosts():
    assert config()["Env"] == ["A=caller", "B=host"]


def test_a_role_is_an_alias_on_the_sessions_own_network_only():
    assert config()["NetworkingConfig"]["EndpointsConfig"] == {"sbx-own": {"Aliases": ["backend"]}}
    shared = config(replace(SPEC, network=None))
    assert shared["NetworkingConfig"]["EndpointsConfig"] == {"sbx-shared": {"Aliases": []}}
    assert shared["HostConfig"]["NetworkMode"] == "sbx-shared"


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES", "GCONV_PATH"])
def test_variables_of_the_dynamic_loader_are_refused(name: str):
    with pytest.raises(InvalidInput, match=name) as refused:
        config(replace(SPEC, env={name: "/workspace/evil.so"}))
    assert refused.value.code == "env_refused"


def test_the_seccomp_profile_refuses_what_it_does_not_list():
    (_, option) = config()["HostConfig"]["SecurityOpt"]
    profile = json.loads(option.removeprefix("seccomp="))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = [rule for rule in profile["syscalls"] if "ALLOW" in rule["action"] and "args" not in rule]
    always = {name for rule in allowed for name in rule["names"]}
    assert {"read", "execve", "futex", "openat", "rseq", "fchmodat2"} <= always
    refused = "mount unshare setns keyctl add_key bpf userfaultfd io_uring_setup ptrace perf_event_open clone3 clone"
    assert always.isdisjoint(refused.split())


def test_the_engines_seccomp_profile_can_be_used():
    host = container_config(
        SPEC,
        deployment_id=DEPLOYMENT,
        network="sbx-shared",
        environment={},
        guest_folder=None,
        oci_runtime=None,
        ipv6_loopback=False,
        seccomp="engine",
    )["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]


def test_disk_space_is_limited_only_on_request():
    free = config()["HostConfig"]
    assert "StorageOpt" not in free
    assert "DriverConfig" not in free["Mounts"][0]["VolumeOptions"]
    limited = config(replace(SPEC, limits=replace(SPEC.limits, disk_bytes=5 << 20)))["HostConfig"]
    assert limited["StorageOpt"] == {"size": "5242880"}
    assert limited["Mounts"][0]["VolumeOptions"]["DriverConfig"] == {"Name": "local", "Options": {"size": "5242880"}}


def test_the_guest_agent_is_process_1_with_another_runtime():
    assert config()["HostConfig"]["Init"] is True
    isolated = container_config(
        SPEC,
        deployment_id=DEPLOYMENT,
        network="sbx-shared",
        environment={},
        guest_folder=None,
        oci_runtime="runsc",
        ipv6_loopback=False,
    )["HostConfig"]
    assert (isolated["Init"], isolated["Runtime"]) == (False, "runsc")
