"""Runs the command line in processes of its own: forks of a process that has imported it already, which is quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Answers each request, a line of JSON, with the exit code of the command.
_SERVER = """
import json, os, sys, traceback
from sandbox.cli.main import main

def run(request):
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        os.dup2(os.open(request["files"][number], flags), number)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["sandbox", *request["arguments"]]
    sys.stdin = open(0)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        run(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands one after the other. Blocks; not thread-safe."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, env: Mapping[str, str], stdin: bytes | None = None) -> Done:
        """Run `sandbox ARGUMENTS` with this environment alone; `stdin` None: standard input is /dev/null."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            for path, content in zip(files, (stdin or b"", b"", b""), strict=True):
                path.write_bytes(content)
            if stdin is None:
                files[0] = Path(os.devnull)
            request = {"arguments": arguments, "env": dict(env), "files": list(map(str, files))}
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            return Done(code, files[1].read_text("utf-8"), files[2].read_text("utf-8"))

    def close(self) -> None:
        self._server.communicate()
