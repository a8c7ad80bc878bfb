"""The SDK: speaks HTTP, imports nothing of ours but `domain`.

from sandbox.client import Sandbox

with Sandbox.create("examples/fullstack") as sandbox:
    print(sandbox.preview_url)
    print(sandbox.commands.run("python --version", role="backend").stdout)
"""

from sandbox.client.aio import AsyncSandbox
from sandbox.client.config import ClientConfig, resolve
from sandbox.client.errors import (
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    LaunchFailed,
    NotFoundError,
    PackingFailed,
    SandboxError,
    StreamBroken,
)
from sandbox.client.models import CommandResult, FileEntry, LaunchEvent, LogLine, ProjectInfo, SessionInfo
from sandbox.client.sync import Sandbox
from sandbox.client.terminal import Terminal

__all__ = [
    "ApiError",
    "AsyncSandbox",
    "AuthenticationError",
    "ClientConfig",
    "CommandResult",
    "ConnectionFailed",
    "FileEntry",
    "LaunchEvent",
    "LaunchFailed",
    "LogLine",
    "NotFoundError",
    "PackingFailed",
    "ProjectInfo",
    "Sandbox",
    "SandboxError",
    "SessionInfo",
    "StreamBroken",
    "Terminal",
    "resolve",
]
