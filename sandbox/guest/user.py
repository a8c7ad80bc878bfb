"""The unprivileged user of the sandbox."""

from __future__ import annotations

import contextlib
import os
import signal

from .variables import Variables

#: Processes with the highest score are the first that the kernel kills when memory runs out: all of the user's before
#: the guest agent. Raising one's own score needs no privilege.
_OOM_SCORE = b"1000"


class User:
    """The user that everything sandboxed runs as. Its group has the same number."""

    def __init__(self, uid: int, workspace: str, variables: Variables) -> None:
        self.uid = uid
        self.variables = variables
        self.gid = uid
        self.workspace = workspace
        self.home = "/home/sandbox" if os.path.isdir("/home/sandbox") else workspace

    def environment(self, extra: dict[str, str]) -> dict[str, str]:
        """The container's environment, what the service has set beside it, the user's variables, then `extra`."""
        own = {"HOME": self.home, "USER": "sandbox", "LOGNAME": "sandbox"}
        return {**os.environ, **self.variables.current, **own, **extra}

    def become(self, keep: set[int]) -> None:
        """Turn the calling process, which was just forked, into the user's for good.

        It gives up all groups and capabilities and closes every descriptor above 2 except `keep`. Having been root, it
        stays closed to ptrace and /proc access by other processes of the user.
        """
        signal.set_wakeup_fd(-1)
        # A signal that is ignored stays so in every program that is started, and shells cannot trap it then.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in keep:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(_OOM_SCORE)
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.umask(0o022)
