"""The Python SDK, a client of the HTTP API. Of this service's packages it imports only `domain`.

Example:
    from sandbox.client import Sandbox

    with Sandbox.create("examples/fullstack") as sandbox:
        print(sandbox.preview_url)
        print(sandbox.commands.run("python --version", role="backend").stdout)
"""

from sandbox.client.aio import AsyncSandbox
from sandbox.client.audit import AsyncAudit, Audit
from sandbox.client.cache import AsyncCache, Cache
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
from sandbox.client.models import (
    CommandResult,
    FileEntry,
    KeptInstall,
    LaunchEvent,
    LogLine,
    ProcessEntry,
    ProjectInfo,
    SessionInfo,
)
from sandbox.client.secrets import AsyncSecrets, Secrets
from sandbox.client.sync import Sandbox
from sandbox.client.terminal import Terminal

__all__ = [
    "ApiError",
    "AsyncAudit",
    "AsyncCache",
    "AsyncSandbox",
    "AsyncSecrets",
    "Audit",
    "AuthenticationError",
    "Cache",
    "ClientConfig",
    "CommandResult",
    "ConnectionFailed",
    "FileEntry",
    "KeptInstall",
    "LaunchEvent",
    "LaunchFailed",
    "LogLine",
    "NotFoundError",
    "PackingFailed",
    "ProcessEntry",
    "ProjectInfo",
    "Sandbox",
    "SandboxError",
    "Secrets",
    "SessionInfo",
    "StreamBroken",
    "Terminal",
    "resolve",
]
