"""Recognises Node.js apps: development servers of user interfaces (Vite, Next.js, …), and servers (Express, …)."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from sandbox.domain.plan import RolePlan
from sandbox.projects.detection.candidate import BACKEND, FRONTEND, NODE_RUNTIME, Candidate
from sandbox.projects.source import Folder


@dataclass(frozen=True, slots=True)
class Tool:
    """A development server of a user interface."""

    framework: str
    #: Name of the npm package that contains it.
    package: str
    #: Default port.
    port: int
    #: Arguments that set the address and port to listen on.
    flags: str
    #: The sub-commands that start the server; "" if it starts without one.
    commands: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


_HOST_PORT = "--host 0.0.0.0 --port {port}"

#: By name of the program. If no script starts one of them, the packages are searched in this order.
_TOOLS: dict[str, Tool] = {
    "next": Tool(
        "next", "next", 3000, "--hostname 0.0.0.0 --port {port}", ("dev",), (("NEXT_TELEMETRY_DISABLED", "1"),)
    ),
    "nuxt": Tool("nuxt", "nuxt", 3000, _HOST_PORT, ("dev",), (("NUXT_TELEMETRY_DISABLED", "1"),)),
    "nuxi": Tool("nuxt", "nuxt", 3000, _HOST_PORT, ("dev",), (("NUXT_TELEMETRY_DISABLED", "1"),)),
    "astro": Tool("astro", "astro", 4321, _HOST_PORT, ("dev",), (("ASTRO_TELEMETRY_DISABLED", "1"),)),
    "react-router": Tool("react-router", "@react-router/dev", 5173, _HOST_PORT, ("dev",)),
    "remix": Tool("remix", "@remix-run/dev", 5173, _HOST_PORT, ("vite:dev",)),
    "react-scripts": Tool(
        "create-react-app", "react-scripts", 3000, "", ("start",),
        # The page connects its WebSocket to the preview's port. The preview checks hosts and callers itself.
        (("BROWSER", "none"), ("WDS_SOCKET_PORT", "0"), ("DANGEROUSLY_DISABLE_HOST_CHECK", "true")),
    ),
    "vue-cli-service": Tool("vue-cli", "@vue/cli-service", 8080, _HOST_PORT, ("serve",)),
    "ng": Tool("angular", "@angular/cli", 4200, _HOST_PORT, ("serve",), (("NG_CLI_ANALYTICS", "false"),)),
    "gatsby": Tool("gatsby", "gatsby", 8000, _HOST_PORT, ("develop",), (("GATSBY_TELEMETRY_DISABLED", "1"),)),
    "vite": Tool("vite", "vite", 5173, f"{_HOST_PORT} --strictPort", ("", "dev", "serve")),
    "parcel": Tool("parcel", "parcel", 1234, _HOST_PORT, ("", "serve")),
    "webpack": Tool("webpack", "webpack-dev-server", 8080, f"{_HOST_PORT} --allowed-hosts all", ("serve",)),
    "webpack-dev-server": Tool("webpack", "webpack-dev-server", 8080, f"{_HOST_PORT} --allowed-hosts all", ("",)),
    "http-server": Tool("http-server", "http-server", 8080, "-a 0.0.0.0 -p {port}", ("",)),
    "live-server": Tool("live-server", "live-server", 8080, "--host=0.0.0.0 --port={port} --no-browser", ("",)),
    "serve": Tool("serve", "serve", 3000, "-l tcp://0.0.0.0:{port}", ("",)),
}  # fmt: skip
_UI_SCRIPTS = ("dev", "start", "serve", "develop")

_SERVERS = {
    "@nestjs/core": "nest",
    "express": "express",
    "fastify": "fastify",
    "koa": "koa",
    "hono": "hono",
    "@hapi/hapi": "hapi",
    "restify": "restify",
    "polka": "polka",
    "socket.io": "socket.io",
    "ws": "ws",
}
_SERVER_SCRIPTS = ("start:dev", "dev", "start", "serve")
_SERVER_PORT = 3000
_ENTRIES = (
    "server.js", "index.js", "app.js", "main.js", "server.mjs", "index.mjs", "app.mjs", "main.mjs", "server.cjs",
    "index.cjs", "src/server.js", "src/index.js", "src/app.js", "src/main.js", "server/index.js", "bin/www",
)  # fmt: skip
_SOURCES = ("bin/www", "src/server.ts", "src/index.ts", "src/main.ts", "src/app.ts", "server.ts", "index.ts", "app.ts")
#: Programs that scripts call although they are often installed globally only.
_GLOBAL_PROGRAMS = frozenset({"nodemon", "tsx", "ts-node", "ts-node-dev", "pm2", "bun", "deno"})

_LISTENS = re.compile(r"\.listen\s*\(|\bserve\s*\(")
_PORT_PATTERNS = (
    re.compile(r"\.env\.PORT\s*(?:\|\||\?\?)\s*['\"`]?(\d{2,5})"),
    re.compile(r"\.env\[['\"]PORT['\"]\]\s*(?:\|\||\?\?)\s*['\"`]?(\d{2,5})"),
    re.compile(r"\b(?:PORT|port)\s*(?::\s*number\s*)?=\s*['\"`]?(\d{2,5})\b"),
    re.compile(r"\.listen\s*\(\s*(?:\{\s*port\s*:\s*)?(\d{2,5})\b"),
)
_CONFIG_PORT = re.compile(r"\bport\s*:\s*(\d{2,5})\b")


def detect_node(folder: Folder) -> Candidate | None:
    """Return the Node.js app of a folder, or None."""
    package = _read_package(folder)
    if package is None:
        return _bare_script(folder)
    dependencies = _strings(package.get("dependencies")) | _strings(package.get("devDependencies"))
    scripts = _strings(package.get("scripts"))
    return _user_interface(folder, package, scripts, dependencies) or _server(folder, package, scripts, dependencies)


def _read_package(folder: Folder) -> dict[str, Any] | None:
    text = folder.read("package.json")
    if text is None:
        return None
    try:
        package = json.loads(text)
    except (ValueError, RecursionError) as error:
        folder.notes.append(f"{folder.full_path('package.json')} is not valid JSON: {error}")
        return None
    if not isinstance(package, dict):
        folder.notes.append(f"{folder.full_path('package.json')} is not an object")
        return None
    return package


def _strings(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def install_command(folder: Folder, package: dict[str, Any]) -> str:
    """Return the install command.

    `packageManager` or else the lock file decides the package manager. If there is a lock file, it is followed exactly.
    """
    name, _, version = str(package.get("packageManager") or "").partition("@")
    if name == "pnpm" or (not name and folder.has("pnpm-lock.yaml")):
        return "pnpm install --frozen-lockfile" if folder.has("pnpm-lock.yaml") else "pnpm install"
    if name == "yarn" or (not name and folder.has("yarn.lock")):
        if folder.has(".yarnrc.yml") or (version[:1].isdigit() and not version.startswith(("0", "1."))):
            return "YARN_NODE_LINKER=node-modules npx --yes @yarnpkg/cli-dist install"
        return "yarn install --frozen-lockfile" if folder.has("yarn.lock") else "yarn install"
    locked = folder.has("package-lock.json") or folder.has("npm-shrinkwrap.json")
    return "npm ci" if locked else "npm install"


def _plan(
    folder: Folder, framework: str, start: str, port: int, *, install: str | None, env: dict[str, str]
) -> RolePlan:
    return RolePlan(
        runtime=NODE_RUNTIME, root=folder.path, framework=framework, install=install, start=start, port=port, env=env
    )


def _user_interface(
    folder: Folder, package: dict[str, Any], scripts: dict[str, str], dependencies: dict[str, str]
) -> Candidate | None:
    install = install_command(folder, package)
    for name in _UI_SCRIPTS:
        commands = _commands(scripts.get(name, ""))
        tool = _tool(commands[-1]) if commands else None
        if tool is not None:
            # `npm run` runs the scripts whichever package manager is used, and passes arguments on unchanged.
            flags = f" -- {tool.flags.format(port=tool.port)}" if tool.flags else ""
            plan = _plan(
                folder, tool.framework, f"npm run {name}{flags}", tool.port, install=install, env=dict(tool.env)
            )
            return Candidate(FRONTEND, plan)
    tool = next((tool for tool in _TOOLS.values() if tool.package in dependencies), None)
    return _without_plain_script(folder, tool, install, scripts, dependencies) if tool else None


def _without_plain_script(
    folder: Folder, tool: Tool, install: str, scripts: dict[str, str], dependencies: dict[str, str]
) -> Candidate | None:
    """Return the candidate for a project in which no script starts just the tool.

    A script that starts the tool together with something else is run unchanged, and the port is read from the tool's
    configuration. If there is no script at all, the tool is started directly.
    """
    script = next((name for name in _UI_SCRIPTS if _mentions_program(scripts.get(name, ""), tool)), None)
    if script is not None:
        configured = next((name for name in sorted(folder.names) if name.startswith(f"{tool.package}.config.")), "")
        match = _CONFIG_PORT.search(folder.read(configured) or "")
        plan = _plan(
            folder, tool.framework, f"npm run {script}", _port(match) or tool.port, install=install, env=dict(tool.env)
        )
        return Candidate(FRONTEND, plan)
    if any(name in scripts for name in _UI_SCRIPTS) or not _SERVERS.keys().isdisjoint(dependencies):
        return None  # A script starts something else, such as a server that embeds the tool.
    program = next(name for name, known in _TOOLS.items() if known is tool)
    command = " ".join(filter(None, (program, tool.commands[0], tool.flags.format(port=tool.port))))
    return Candidate(FRONTEND, _plan(folder, tool.framework, command, tool.port, install=install, env=dict(tool.env)))


def _server(
    folder: Folder, package: dict[str, Any], scripts: dict[str, str], dependencies: dict[str, str]
) -> Candidate | None:
    framework = next((name for package_name, name in _SERVERS.items() if package_name in dependencies), None)
    main = package.get("main")
    entries = [main, *_ENTRIES] if isinstance(main, str) else list(_ENTRIES)
    entry = next((path for path in map(_clean, entries) if folder.has(path)), None)
    script = _server_script(scripts, dependencies, framework)
    if script is not None:
        start = "npm start" if script == "start" else f"npm run {script}"
        if script == "start" and "build" in scripts and re.search(r"\b(dist|build|out)/", scripts[script]):
            start = f"npm run build && {start}"
    elif entry is not None and (framework or _LISTENS.search(folder.read(entry) or "")):
        start = f"node {shlex.quote(entry)}"
    else:
        return None
    texts = [folder.read(path) or "" for path in _sources(folder, scripts.get(script or "", ""), entry)]
    port = next((found for text in texts if (found := _listening_port(text))), _SERVER_PORT)
    # Without dependencies or workspaces there is nothing to install.
    install = install_command(folder, package) if dependencies or package.get("workspaces") else None
    plan = _plan(folder, framework or "node", start, port, install=install, env={})
    return Candidate(BACKEND, plan, "\n".join(texts))


def _server_script(scripts: dict[str, str], dependencies: dict[str, str], framework: str | None) -> str | None:
    for name in _SERVER_SCRIPTS:
        commands = _commands(scripts.get(name, ""))
        if not commands or (name == "start:dev" and framework != "nest"):
            continue
        absent = {command[0] for command in commands} & (_GLOBAL_PROGRAMS - dependencies.keys())
        if not absent:
            return name
    return None


def _sources(folder: Folder, script: str, entry: str | None) -> list[str]:
    """Return the files in which a server may set its port, the most likely first."""
    named = [_clean(word) for command in _commands(script) for word in command[1:]]
    paths = [*named, *(f"{path}.js" for path in named), *_SOURCES, *([entry] if entry else []), *_ENTRIES]
    return [path for path in dict.fromkeys(paths) if folder.has(path)]


def _bare_script(folder: Folder) -> Candidate | None:
    """Return the candidate for a server without a package.json, or None."""
    for path in _ENTRIES:
        text = folder.read(path) or ""
        if _LISTENS.search(text):
            port = _listening_port(text) or _SERVER_PORT
            plan = _plan(folder, "node", f"node {shlex.quote(path)}", port, install=None, env={})
            return Candidate(BACKEND, plan, text)
    return None


def _listening_port(text: str) -> int | None:
    return next((port for pattern in _PORT_PATTERNS if (port := _port(pattern.search(text)))), None)


def _port(match: re.Match[str] | None) -> int | None:
    return int(match[1]) if match and 1 <= int(match[1]) <= 65535 else None


def _clean(path: str) -> str:
    return path.removeprefix("./")


def _commands(script: str) -> list[list[str]]:
    """Split a script into commands and words, without leading assignments and wrappers (`cross-env A=b`, `npx`)."""
    commands = []
    for part in re.split(r"&&|\|\||;", script):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        while words and (re.match(r"^[A-Za-z_][A-Za-z0-9_]*=", words[0]) or words[0] in ("cross-env", "npx", "exec")):
            words.pop(0)
        if words:
            commands.append(words)
    return commands


def _tool(words: list[str]) -> Tool | None:
    """Return the tool that a command starts as a server, or None."""
    tool = _TOOLS.get(words[0].rpartition("/")[2])
    if tool is None:
        return None
    command = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    # If a tool has no sub-commands, its argument is the folder to serve.
    return tool if command in tool.commands or tool.commands == ("",) else None


def _mentions_program(script: str, tool: Tool) -> bool:
    """Return whether a script contains the name of one of the tool's programs."""
    return any(
        re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w./:-])", script)
        for name, known in _TOOLS.items()
        if known is tool
    )
