"""Recognises Node.js apps: development servers of user interfaces (Vite, Next.js, …), and servers (Express, …)."""

from __future__ import annotations

import re
import shlex
from typing import Any

from sandbox.domain.plan import RolePlan
from sandbox.projects.detection.candidate import BACKEND, FRONTEND, NODE_RUNTIME, Candidate
from sandbox.projects.detection.node_packages import install_command, read_package, strings
from sandbox.projects.detection.node_tools import (
    TOOLS,
    Tool,
    commands_of,
    delegates,
    may_serve,
    mentions_program,
    program_of,
    tool_of,
)
from sandbox.projects.source import Folder

#: Scripts that start a user interface, the most likely first.
_UI_SCRIPTS = (
    "dev", "start", "serve", "develop", "start:dev", "dev:web", "web", "docs:dev", "docs:start", "dev:docs",
    "storybook",
)  # fmt: skip

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
_SERVER_SCRIPTS = (
    "start:dev",
    "dev",
    "develop",
    "start",
    "serve",
    "server",
    "dev:server",
    "start:server",
    "watch",
    "web",
)
#: Other names of scripts that may start a server, if none of the usual ones exists.
_SERVER_SCRIPT_NAME = re.compile(
    r"^(dev|start|serve|server|run|docs|preview|demo|example)([:-].+)?$|[:-](dev|start|serve)$"
)
_RUNS_FILE = re.compile(r"(?:^|[ /])(?:node|nodemon|tsx|ts-node|bun)\s(?:[^&|;]*[ /])?[\w./-]+\.[cm]?[jt]s\b")
_SERVER_PORT = 3000
#: What a script starts that a build must have made before.
_NEEDS_BUILD = re.compile(
    r"\b(dist|build|out)/|\b(next|nuxt|astro|vinxi) (start|preview)\b|\bvite preview\b|\.output/"
    r"|\b(remix|react-router)-serve\b"
)
_ENTRIES = (
    "server.js", "index.js", "app.js", "main.js", "server.mjs", "index.mjs", "app.mjs", "main.mjs", "server.cjs",
    "index.cjs", "src/server.js", "src/index.js", "src/app.js", "src/main.js", "server/index.js", "bin/www",
)  # fmt: skip
_SOURCES = ("bin/www", "src/server.ts", "src/index.ts", "src/main.ts", "src/app.ts", "server.ts", "index.ts", "app.ts")
#: Programs that scripts call although they are often installed globally only.
_GLOBAL_PROGRAMS = frozenset({"nodemon", "tsx", "ts-node", "ts-node-dev", "pm2", "bun", "deno", "json-server", "serve"})

_LISTENS = re.compile(r"\.listen\s*\(|\bserve\s*\(")
_PORT_PATTERNS = (
    re.compile(r"\.env\.PORT\s*(?:\|\||\?\?)\s*['\"`]?(\d{2,5})"),
    re.compile(r"\.env\[['\"]PORT['\"]\]\s*(?:\|\||\?\?)\s*['\"`]?(\d{2,5})"),
    re.compile(r"\b(?:PORT|port)\s*(?::\s*number\s*)?=\s*['\"`]?(\d{2,5})\b"),
    re.compile(r"\.listen\s*\(\s*(?:\{\s*port\s*:\s*)?(\d{2,5})\b"),
)
_CONFIG_PORT = re.compile(r"\bport\s*:\s*(\d{2,5})\b")


def detect_node(folder: Folder) -> Candidate | None:
    """Return the Node.js app of a folder, or None with a note of what was looked at."""
    package = read_package(folder)
    if package is None:
        return _bare_script(folder)
    dependencies = strings(package.get("dependencies")) | strings(package.get("devDependencies"))
    scripts = strings(package.get("scripts"))
    if folder.excluded:
        # A script that starts the apps of other folders would start them a second time.
        scripts = {name: script for name, script in scripts.items() if not delegates(script)}
    found = _user_interface(folder, package, scripts, dependencies) or _server(folder, package, scripts, dependencies)
    if found is None:
        names = ", ".join(sorted(scripts)[:12])
        path = folder.full_path("package.json")
        folder.notes.append(
            f"{path}: no script starts a server ({f'scripts: {names}' if names else 'it has no script'})"
        )
    return found


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
        commands = commands_of(scripts.get(name, ""))
        tool = tool_of(commands[-1]) if commands else None
        if tool is not None:
            # `npm run` runs the scripts whichever package manager is used, and passes arguments on unchanged.
            flags = f" -- {tool.flags.format(port=tool.port)}" if tool.flags else ""
            plan = _plan(
                folder, tool.framework, f"npm run {name}{flags}", tool.port, install=install, env=dict(tool.env)
            )
            return Candidate(FRONTEND, plan)
    tool = next((tool for tool in TOOLS.values() if tool.package in dependencies), None)
    return _without_plain_script(folder, tool, install, scripts, dependencies) if tool else None


def _without_plain_script(
    folder: Folder, tool: Tool, install: str, scripts: dict[str, str], dependencies: dict[str, str]
) -> Candidate | None:
    """Return the candidate for a project in which no script starts just the tool.

    A script that starts the tool together with something else is run unchanged, and the port is read from the tool's
    configuration. If there is no script at all, the tool is started directly.
    """
    script = next((name for name in _UI_SCRIPTS if mentions_program(scripts.get(name, ""), tool)), None)
    if script is not None:
        configured = next((name for name in sorted(folder.names) if name.startswith(f"{tool.package}.config.")), "")
        match = _CONFIG_PORT.search(folder.read(configured) or "")
        plan = _plan(
            folder, tool.framework, f"npm run {script}", _port(match) or tool.port, install=install, env=dict(tool.env)
        )
        return Candidate(FRONTEND, plan)
    if any(may_serve(scripts.get(name, "")) for name in _UI_SCRIPTS) or not _SERVERS.keys().isdisjoint(dependencies):
        return None  # A script starts something else, such as a server that embeds the tool.
    # npx finds programs that a workspace has installed in a folder above.
    words = ("npx", program_of(tool), tool.commands[0], tool.flags.format(port=tool.port))
    command = " ".join(filter(None, words))
    return Candidate(FRONTEND, _plan(folder, tool.framework, command, tool.port, install=install, env=dict(tool.env)))


def _server(
    folder: Folder, package: dict[str, Any], scripts: dict[str, str], dependencies: dict[str, str]
) -> Candidate | None:
    framework = next((name for package_name, name in _SERVERS.items() if package_name in dependencies), None)
    main = package.get("main")
    entries = [main, *_ENTRIES] if isinstance(main, str) else list(_ENTRIES)
    entry = next((path for path in map(_clean, entries) if folder.has(path)), None)
    choices = _server_scripts(scripts, framework)
    script = next((name for name in choices if not _missing_programs(scripts[name], dependencies)), None)
    if script is None and entry is None:
        script = next(iter(choices), None)
    if script is not None:
        start = "npm start" if script == "start" else f"npm run {script}"
        if "build" in scripts and _NEEDS_BUILD.search(scripts[script]):
            start = f"npm run build && {start}"
    elif entry is not None and (framework or _LISTENS.search(folder.read(entry) or "")):
        start = f"node {shlex.quote(entry)}"
    else:
        return None
    texts = [folder.read(path) or "" for path in _sources(folder, scripts.get(script or "", ""), entry)]
    port = next((found for text in texts if (found := _listening_port(text))), _SERVER_PORT)
    # Without dependencies or workspaces there is nothing to install.
    install = install_command(folder, package) if dependencies or package.get("workspaces") else None
    missing = _missing_programs(scripts[script], dependencies) if script else []
    if missing and (install is None or install.startswith("npm ")):
        # The script expects programs that are installed for the whole machine.
        install = " && ".join(filter(None, (install, f"npm install --no-save {' '.join(missing)}")))
    plan = _plan(folder, framework or "node", start, port, install=install, env={})
    return Candidate(BACKEND, plan, "\n".join(texts))


def _server_scripts(scripts: dict[str, str], framework: str | None) -> list[str]:
    """Return the names of the scripts that may start a server, the most likely first."""
    names = [name for name in _SERVER_SCRIPTS if name in scripts]
    names += [name for name in scripts if name not in names and _SERVER_SCRIPT_NAME.search(name)]
    if framework is not None:
        # A script of any name that runs a source file, in a project with a library for servers.
        names += [name for name in scripts if name not in names and _RUNS_FILE.search(scripts[name])]
    if framework != "nest" and "dev" in scripts and "start:dev" in names:
        names.remove("start:dev")
    return [name for name in names if may_serve(scripts[name])]


def _missing_programs(script: str, dependencies: dict[str, str]) -> list[str]:
    return sorted({words[0] for words in commands_of(script)} & (_GLOBAL_PROGRAMS - dependencies.keys()))


def _sources(folder: Folder, script: str, entry: str | None) -> list[str]:
    """Return the files in which a server may set its port, the most likely first."""
    named = [_clean(word) for command in commands_of(script) for word in command[1:]]
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


def of_project(top: Folder, server: Candidate) -> Candidate:
    """Return the candidate for a server in a folder without a package.json, with the packages of the folder above. A
    script there that runs its file starts it."""
    package = read_package(top) or {}
    path = f"{server.plan.root}/{(server.plan.start or '').removeprefix('node ')}"
    scripts = strings(package.get("scripts"))
    dependencies = strings(package.get("dependencies")) | strings(package.get("devDependencies"))
    runs = (name for name, script in scripts.items() if path in script and may_serve(script) and not delegates(script))
    name = next((name for name in runs if not _missing_programs(scripts[name], dependencies)), None)
    plan = _plan(
        top,
        next((name for package_name, name in _SERVERS.items() if package_name in dependencies), "node"),
        f"npm run {name}" if name else f"node {path}",
        server.plan.port or _SERVER_PORT,
        install=install_command(top, package) if dependencies else None,
        env={},
    )
    return Candidate(server.role, plan, server.entry_text)


def _listening_port(text: str) -> int | None:
    return next((port for pattern in _PORT_PATTERNS if (port := _port(pattern.search(text)))), None)


def _port(match: re.Match[str] | None) -> int | None:
    return int(match[1]) if match and 1 <= int(match[1]) <= 65535 else None


def _clean(path: str) -> str:
    return path.removeprefix("./")
