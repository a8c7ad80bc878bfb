"""What sandboxed code can do, tried from inside as the sandboxed user.

Each refused action is also tried where it is allowed, to show that the test itself works.

Disk usage is not limited. No quota works with all storage drivers, so a sandbox can fill the disk that containers and
volumes share.
"""

import asyncio
import contextlib
import json
import os
import subprocess
from pathlib import Path

from sandbox.engine import labels
from sandbox.engine.docker.container_config import user_number
from sandbox.engine.guest_client.client import GuestClient
from tests.integration.engine.isolated_world import MEMORY, PIDS, SECRET, World

STATUS = """
import json
lines = (line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({name: value.strip() for name, value in lines}))
"""


async def test_commands_have_no_privileges_and_cannot_gain_any(world: World):
    status = await world.one.python(STATUS)
    own = str(user_number(world.one.session_id))
    assert status["Uid"].split() == [own] * 4
    assert status["Gid"].split() == [own] * 4
    assert set(status["Groups"].split()) <= {own}
    assert (await world.one.sh("id -un; stat -c %u /workspace ~")).split() == ["sandbox", own, own]
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


BECOME_ROOT = """
import json, os
refused = []
for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.chown("/workspace", 0, 0),
            lambda: os.chroot("/workspace"), lambda: os.mknod("/workspace/disk", 0o60666, os.makedev(254, 0)),
            lambda: os.nice(-5), lambda: open("/etc/passwd", "a"), lambda: open("/opt/sandbox-agent/main.py", "a"),
            lambda: open("/proc/sys/kernel/core_pattern", "w"), lambda: os.listdir("/root")):
    try:
        act()
        refused.append(False)
    except PermissionError:
        refused.append(True)
    except OSError as error:  # The file system is read-only.
        refused.append(error.errno == 30)
print(json.dumps(refused))
"""


async def test_no_program_gives_root(world: World):
    assert set(await world.one.python(BECOME_ROOT)) == {True}
    assert await world.one.sh("find / -xdev -type f -perm /6000 2>/dev/null") == ""
    own = "cp /usr/bin/id own && chmod 6755 own && ./own -u; chown root own || echo refused"
    assert (await world.one.sh(own)).split()[0] == str(user_number(world.one.session_id))
    assert "refused" in await world.one.sh(own)
    for command in ("su root -c id", "sudo -n id", "echo root:x | chpasswd", "newgrp root < /dev/null"):
        assert "uid=0" not in await world.one.sh(command)


async def test_a_setuid_program_of_root_gives_no_privileges(world: World):
    """The engine puts a setuid program into the container, as an image might contain one."""
    subprocess.run(
        ["docker", "exec", "-u", "0", world.one.state.id, "sh", "-c", "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id"],
        check=True,
    )
    assert await world.one.sh("stat -c '%u %a' /tmp/id; /tmp/id -u") == f"0 4755\n{user_number(world.one.session_id)}\n"


SYSCALLS = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "uts": 0x4000000, "ipc": 0x8000000,
       "cgroup": 0x2000000, "user+mount": 0x10020000}
result = {}
for name, flags in NEW.items():
    pid = os.fork()
    if pid == 0:
        os._exit(100 if libc.unshare(flags) == 0 else ctypes.get_errno())
    result[f"unshare {name}"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def call(name, code):
    result[name] = 100 if code >= 0 else ctypes.get_errno()
call("mount", libc.mount(b"none", b"/workspace", b"tmpfs", 0, None))
call("mount proc", libc.mount(b"proc", b"/workspace", b"proc", 0, None))
call("umount", libc.umount2(b"/workspace", 2))
call("pivot_root", libc.syscall(155, b"/workspace", b"/workspace"))
call("setns", libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0))
call("ptrace agent", libc.ptrace(16, 1, 0, 0))
call("bpf", libc.syscall(321, 0, 0, 0))
call("perf_event_open", libc.syscall(298, 0, 0, 0, 0, 0))
call("keyctl", libc.syscall(250, 0, -3, 0))
call("userfaultfd", libc.syscall(323, 0))
call("io_uring_setup", libc.syscall(425, 1, 0))
call("init_module", libc.syscall(175, 0, 0, b""))
call("open_by_handle_at", libc.syscall(304, -100, b"", 0))
call("reboot", libc.reboot(0))
print(json.dumps(result))
"""
#: The call is refused by the kernel or by seccomp, or it does not exist.
REFUSED = {1, 13, 38}


async def test_namespaces_mounts_and_kernel_interfaces_are_closed(world: World):
    result = await world.one.python(SYSCALLS)
    assert {name: code for name, code in result.items() if code not in REFUSED} == {}
    for command in ("unshare -U id -u", "unshare -r id -u", "unshare -Urm mount -t tmpfs none /mnt", "unshare -m true"):
        assert (await world.one.run("sh", "-c", command)).exit_code != 0


#: What development tools do: threads, subprocesses, file watches, shared memory, asynchronous I/O, raw terminals.
TOOLS = """
import asyncio, ctypes, json, mmap, multiprocessing.shared_memory, os, pty, select, socket, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
async def sockets():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    return await reader.read()
thread = threading.Thread(target=lambda: None)
thread.start()
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
memory.unlink()
results = {
    "sockets": asyncio.run(sockets()) == b"",
    "subprocess": subprocess.check_output(["echo", "x"]) == b"x\\n",
    "inotify": libc.inotify_init1(0) >= 0,
    "epoll": select.epoll().fileno() >= 0,
    "memfd": os.memfd_create("x") >= 0,
    "pty": len(pty.openpty()) == 2,
    "links": bool(socket.if_nameindex()),
    "protected memory": mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC) is not None,
    "affinity": bool(os.sched_getaffinity(0)),
    "memory size": os.sysconf("SC_PHYS_PAGES") > 0,
}
print(json.dumps([name for name, worked in results.items() if not worked]))
"""


async def test_the_seccomp_profile_lets_development_tools_work(world: World):
    assert await world.one.python(TOOLS) == []
    script = "set -e; git init -q made; cd made; git -c user.name=a -c user.email=b commit --allow-empty -m x"
    assert "x" in await world.one.sh(script)
    compiled = "echo 'int main() { return 7; }' > c.cc && g++ -o c c.cc; ./c; echo $?"
    assert await world.one.sh(compiled) == "7\n"


MOUNTS = """
import json
rows = [line.split() for line in open("/proc/self/mountinfo")]
print(json.dumps([[row[4], row[row.index("-") + 1], row[row.index("-") + 2]] for row in rows]))
"""


async def test_only_expected_file_systems_are_mounted(world: World):
    kernel = {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}
    mounts = {target: kind for target, kind, _ in await world.one.python(MOUNTS)}
    assert {target for target, kind in mounts.items() if kind not in kernel} - {"/sbin/docker-init"} == {
        "/",
        "/workspace",
        "/run/sandbox-agent",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/etc/hosts",
    } | ({"/usr/sbin/docker-init"} & mounts.keys())
    assert mounts["/"] == "overlay"


async def test_no_engine_socket_and_no_device_of_the_host(world: World):
    assert await world.one.sh("find / -type s 2>/dev/null") == ""
    assert await world.one.sh("ls -d /var/run/docker.sock /run/containerd /host /mnt/* 2>/dev/null") == ""
    assert await world.one.sh("find /dev -type b") == ""
    sockets = "import socket; socket.socket(socket.{}, socket.SOCK_RAW, {})"
    for family, protocol in (("AF_INET", 1), ("AF_PACKET", 3), ("AF_INET6", 58)):
        result = await world.one.run("python3", "-c", sockets.format(family, protocol))
        assert b"PermissionError" in result.stderr


GUEST = """
import json, os, signal, socket
agent = next(int(pid) for pid in os.listdir("/proc") if pid.isdigit()
             and b"/opt/sandbox-agent\\0serve" in open(f"/proc/{pid}/cmdline", "rb").read()
             and b"docker-init" not in open(f"/proc/{pid}/cmdline", "rb").read())
acts = {
    "kill": lambda: os.kill(agent, signal.SIGKILL), "stop": lambda: os.kill(agent, signal.SIGSTOP),
    "kill init": lambda: os.kill(1, signal.SIGKILL), "environ": lambda: open(f"/proc/{agent}/environ").read(),
    "memory": lambda: open(f"/proc/{agent}/mem", "r+b"), "files": lambda: os.listdir(f"/proc/{agent}/fd"),
    "root": lambda: os.listdir(f"/proc/{agent}/root/"), "oom": lambda: open(f"/proc/{agent}/oom_score_adj", "w"),
    "list": lambda: os.listdir("/run/sandbox-agent"), "rename": lambda: os.rename("/run/sandbox-agent", "/run/x"),
    "connect": lambda: socket.socket(socket.AF_UNIX).connect("/run/sandbox-agent/agent.sock"),
    "spool": lambda: os.listdir("/var/lib/sandbox-agent"), "slow": lambda: os.setpriority(os.PRIO_PROCESS, agent, 5),
}
result = {}
for name, act in acts.items():
    try:
        act()
        result[name] = "done"
    except OSError as error:
        result[name] = type(error).__name__
print(json.dumps(result))
"""


async def test_the_guest_agent_is_inaccessible(world: World):
    result = await world.one.python(GUEST)
    assert {name: what for name, what in result.items() if what != "PermissionError"} == {}
    await world.one.answers()


async def test_killing_all_processes_does_not_kill_the_guest_agent(world: World):
    await world.one.guest.start("victim", ["sleep", "600"])
    await world.one.guest.start("killer", "sleep 0.2; kill -9 -1; echo done")
    async with asyncio.timeout(60):
        assert (await world.one.guest.wait("victim")).signal == 9
        assert (await world.one.guest.wait("killer")).running is False
    await world.one.answers()
    state = await world.engine.inspect_container(world.one.session_id, "main")
    assert state is not None
    assert (state.status, state.id, state.started_at) == ("running", world.one.state.id, world.one.state.started_at)


ENVIRONMENTS = """
import json, os
found = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        found[pid] = open(f"/proc/{pid}/environ").read()
    except OSError:
        found[pid] = None
print(json.dumps([dict(os.environ), found]))
"""


async def test_no_secret_of_the_service_is_in_the_container(world: World):
    assert os.environ["SANDBOX_ADMIN_TOKEN"] == SECRET
    own, of_processes = await world.one.python(ENVIRONMENTS)
    assert of_processes["1"] is None
    assert SECRET not in json.dumps([own, of_processes])
    named = {name for name in own if name.startswith(("SANDBOX_", "DATABASE", "DOCKER", "PG"))}
    assert named == {"SANDBOX_COMMAND"}, "only the mark by which the guest agent finds a command's processes"
    inspected = json.loads(subprocess.check_output(["docker", "inspect", world.one.state.id]))[0]
    assert SECRET not in json.dumps(inspected)


async def test_a_fork_bomb_is_limited_to_its_container_and_can_be_killed(world: World):
    guest = world.one.guest
    assert isinstance(guest, GuestClient)
    await guest.start("bomb", "bomb() { bomb | bomb & }; bomb; sleep 600")
    async with asyncio.timeout(60):
        while (await world.one.guest.stats()).pids < PIDS * 3 // 4:
            await asyncio.sleep(0.05)
    # Meanwhile the guest agent answers, although it cannot start processes, and other sandboxes are not affected.
    assert "bomb" in [process.name for process in await world.one.guest.processes()]
    await world.neighbour.answers()
    async with asyncio.timeout(60):
        await guest.kill_all()
        while (await world.one.guest.stats()).pids > 20:
            await guest.kill_all()
            await asyncio.sleep(0.1)
    await world.one.answers()


HOG = "b = bytearray()\nwhile True: b += bytes(8 << 20)"


async def test_only_the_process_that_exceeds_the_memory_limit_is_killed(world: World):
    async with contextlib.aclosing(world.engine.events()) as events:
        result = await world.one.run("python3", "-c", HOG)
        assert (result.exit_code, result.signal, result.out_of_memory) == (137, 9, True)
        await world.one.guest.start("hog", ["python3", "-c", HOG])
        async with asyncio.timeout(30):
            hog = await world.one.guest.wait("hog")
            assert (hog.signal, hog.out_of_memory) == (9, True)
            async for event in events:
                if event.action == "oom":
                    assert (event.session_id, event.role) == (world.one.session_id, "main")
                    break
    await world.one.answers()
    await world.neighbour.answers()
    state = await world.engine.inspect_container(world.one.session_id, "main")
    assert state is not None
    assert (state.status, state.started_at) == ("running", world.one.state.started_at)


async def test_the_limits_are_those_of_the_spec(world: World):
    inspected = json.loads(subprocess.check_output(["docker", "inspect", world.one.state.id]))[0]
    host = inspected["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (MEMORY, MEMORY, PIDS, 10**9)
    assert host["PortBindings"] in ({}, None)
    assert host["Privileged"] is False
    assert (await world.one.sh("ulimit -c; ulimit -Hc")) == "0\n0\n"


async def test_the_hosts_folder_contains_only_the_socket(world: World):
    home = world.engine._settings.home
    folder = Path(home) / "run" / world.one.session_id.hex[-12:] / "main"
    assert [path.name for path in folder.iterdir()] == ["agent.sock"]
    assert labels.container_name(world.one.session_id, "main") == world.one.state.name
