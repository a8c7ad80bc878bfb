"""Start commands that a project states for people or platforms: Procfile, Dockerfile, `[project.scripts]`, README."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from sandbox.domain.plan import RolePlan
from sandbox.projects.detection.candidate import BACKEND, NODE_RUNTIME, PYTHON_RUNTIME, Candidate
from sandbox.projects.detection.node_packages import install_command, read_package, strings
from sandbox.projects.detection.python_dependencies import Dependencies
from sandbox.projects.source import Folder

#: Programs that start a server, with the packages to install if they are not declared.
_PYTHON_PROGRAMS: dict[str, tuple[str, ...]] = {
    "python": (),
    "python3": (),
    "uvicorn": ("uvicorn",),
    "gunicorn": ("gunicorn",),
    "hypercorn": ("hypercorn",),
    "daphne": ("daphne",),
    "granian": ("granian",),
    "waitress-serve": ("waitress",),
    "flask": ("flask",),
    "fastapi": ("fastapi[standard]",),
    "litestar": ("litestar[standard]",),
    "sanic": ("sanic",),
    "streamlit": ("streamlit",),
    "gradio": ("gradio",),
    "chainlit": ("chainlit",),
    "panel": ("panel",),
    "bokeh": ("bokeh",),
    "shiny": ("shiny",),
    "mkdocs": ("mkdocs",),
    "datasette": ("datasette",),
    "pserve": ("pyramid",),
    "jupyter": ("jupyter",),
}
_NODE_PROGRAMS = frozenset({"node", "npm", "npx", "pnpm", "yarn", "bun", "tsx", "nodemon"})
#: Words after a program that show that its command starts no server.
_NO_START = frozenset({
    "install", "i", "ci", "add", "create", "init", "test", "build", "lint", "format", "publish", "-m", "--version",
    "-V", "--help", "-c", "-e", "-p", "login", "link", "global", "upgrade", "update", "remove", "uninstall", "migrate",
    "shell",
})  # fmt: skip
#: Modules that `python -m` starts as a server.
_SERVER_MODULES = frozenset({
    "uvicorn", "flask", "gunicorn", "hypercorn", "streamlit", "http.server", "sanic", "waitress", "aiohttp.web",
    "mkdocs", "daphne", "granian", "chainlit", "gradio", "panel", "fastapi", "litestar",
})  # fmt: skip
_RUN_SCRIPTS = ("start", "dev", "serve", "server", "develop")
_README_NAMES = ("readme.md", "readme.rst", "readme.txt", "readme")
_FENCE = re.compile(r"^\s*(```|~~~)")
_INLINE = re.compile(r"`([^`\n]{3,200})`")
_PORT = re.compile(
    r"(?:--port[= ]|-p[= ]?|(?:--bind|-b|--addr|-a)[= ]\S{0,60}:|runserver \S{0,60}?:?|http\.server )(\d{2,5})\b"
)
_CMD = re.compile(r"^(?:CMD|ENTRYPOINT)\s+(\S.*)$", re.MULTILINE)
_EXPOSE = re.compile(r"^EXPOSE\s+(\d{2,5})", re.MULTILINE)
_SERVES = re.compile(r"\b(serve|server|web|start|run|app|dev)\b")
#: Libraries that listen on a port. A program of a project that uses none of them is no server.
_SERVER_LIBRARIES = frozenset({
    "uvicorn", "flask", "fastapi", "starlette", "aiohttp", "tornado", "bottle", "django", "sanic", "quart", "litestar",
    "gunicorn", "hypercorn", "waitress", "gradio", "dash", "nicegui", "streamlit", "cherrypy", "falcon", "pyramid",
    "werkzeug", "twisted", "websockets", "mcp", "fastmcp", "granian", "robyn", "connexion", "blacksheep", "panel",
})  # fmt: skip


def detect_procfile(folder: Folder) -> Candidate | None:
    """Return the candidate for the process `web` of a Procfile, or None."""
    for name in ("Procfile", "Procfile.dev"):
        for line in (folder.read(name) or "").splitlines():
            process, colon, command = line.partition(":")
            if colon and process.strip() == "web" and command.strip():
                return _candidate(folder, command.strip(), "Procfile")
    return None


def detect_dockerfile(folder: Folder) -> Candidate | None:
    """Return the candidate for the last command of a Dockerfile, or None. Only the command is used, not the image."""
    text = (folder.read("Dockerfile") or "").replace("\\\n", " ")
    commands = _CMD.findall(text)
    if not commands:
        return None
    command = commands[-1].strip()
    if command.startswith("["):
        try:
            words = json.loads(command)
        except ValueError:
            return None
        command = shlex.join(word for word in words if isinstance(word, str)) if isinstance(words, list) else ""
        # A shell that is named in the list runs a command that is written out.
        command = re.sub(r"^(?:/bin/)?(?:ba)?sh -c '(.*)'$", r"\1", command)
    candidate = _candidate(folder, command, "Dockerfile")
    exposed = _EXPOSE.findall(text)
    if candidate is None or not exposed or _PORT.search(command) or not 1024 <= int(exposed[-1]) <= 65535:
        return candidate
    return replace(candidate, plan=candidate.plan.model_copy(update={"port": int(exposed[-1])}))


def detect_project_script(folder: Folder) -> Candidate | None:
    """Return the candidate for a program in `[project.scripts]` of a project that uses a server library, or None."""
    dependencies = Dependencies(folder)
    project = dependencies.pyproject.get("project")
    scripts = strings(project.get("scripts")) if isinstance(project, dict) else {}
    if not scripts or _SERVER_LIBRARIES.isdisjoint(dependencies.extras):
        return None
    name = next((name for name in scripts if _SERVES.search(name)), next(iter(scripts)))
    plan = RolePlan(
        runtime=PYTHON_RUNTIME,
        root=folder.path,
        framework="python",
        install=dependencies.install_project(),
        start=shlex.quote(name),
        port=8000,
    )
    return Candidate(BACKEND, plan)


def detect_readme(folder: Folder) -> Candidate | None:
    """Return the candidate for the last command of a README that starts a server, or None."""
    name = next((name for name in sorted(folder.names) if name.lower() in _README_NAMES), None)
    if name is None:
        return None
    commands = [command for command in _commands(folder.read(name) or "") if _starts_server(folder, command)]
    if not commands:
        folder.notes.append(f"{folder.full_path(name)}: no command in it starts a server")
        return None
    return _candidate(folder, commands[-1], "README")


def _commands(text: str) -> Iterator[str]:
    """Yield the lines of the code blocks of a README, without prompts and comments."""
    in_block = False
    for line in text.splitlines():
        if _FENCE.match(line):
            in_block = not in_block
            continue
        stripped = line.strip()
        if in_block or line.startswith(("    ", "\t")) or stripped.startswith("$ "):
            yield stripped.removeprefix("$ ").removeprefix("> ").partition(" #")[0].strip()
        else:
            yield from _INLINE.findall(line)


def _starts_server(folder: Folder, command: str) -> bool:
    words = _words(command)
    if not words:
        return False
    program, arguments = words[0].rpartition("/")[2], words[1:]
    first = arguments[0] if arguments else ""
    if program in ("npm", "pnpm", "yarn", "bun"):
        script = (arguments[1] if len(arguments) > 1 else "") if first == "run" else first
        return script in strings((read_package(folder) or {}).get("scripts")) and script in _RUN_SCRIPTS
    if program in ("python", "python3"):
        if first == "-m":
            return len(arguments) > 1 and (arguments[1] in _SERVER_MODULES or _has_module(folder, arguments[1]))
        return first.endswith(".py") and folder.has(first.removeprefix("./"))
    if program == "node":
        return folder.has(first.removeprefix("./"))
    return (program in _PYTHON_PROGRAMS or program in ("npx", "tsx", "nodemon")) and (
        bool(arguments) and _NO_START.isdisjoint(arguments[:1])
    )


def _has_module(folder: Folder, name: str) -> bool:
    """Return whether a module that can be run is the project's own, and its name sounds like a server."""
    path = name.replace(".", "/")
    own = any(folder.has(f"{base}{path}{end}") for base in ("", "src/") for end in (".py", "/__main__.py"))
    return own and _SERVES.search(name.replace("_", " ")) is not None


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    while words and (re.match(r"^[A-Za-z_]\w*=", words[0]) or words[:2] in (["uv", "run"], ["poetry", "run"])):
        del words[: 1 if "=" in words[0] else 2]
    return words


def _candidate(folder: Folder, command: str, source: str) -> Candidate | None:
    words = _words(command)
    program = words[0].rpartition("/")[2] if words else ""
    matched = _PORT.search(command)
    port = int(matched[1]) if matched and 1 <= int(matched[1]) <= 65535 else None
    if program in _NODE_PROGRAMS:
        package = read_package(folder)
        install = install_command(folder, package) if package is not None else None
        return _planned(folder, NODE_RUNTIME, install, command, port or 3000)
    if program in _PYTHON_PROGRAMS:
        packages = _PYTHON_PROGRAMS[program]
        needs = {re.sub(r"\[.*", "", package): package for package in packages}
        dependencies = Dependencies(folder)
        install = dependencies.install(needs, ()) if needs or dependencies.declared else None
        # The programs of the project are already on PATH.
        start = re.sub(r"^((?:\w+=\S+ )*)(?:uv|poetry) run ", r"\1", command)
        return _planned(folder, PYTHON_RUNTIME, install, start, port or 8000)
    if program and (dependencies := Dependencies(folder)).declared:
        return _planned(folder, PYTHON_RUNTIME, dependencies.install({}, ()), command, port or 8000)
    if program and (package := read_package(folder)) is not None:
        return _planned(folder, NODE_RUNTIME, install_command(folder, package), command, port or 3000)
    folder.notes.append(f"{folder.full_path(source)}: no runtime is known for {program[:40]!r}")
    return None


def _planned(folder: Folder, runtime: str, install: str | None, start: str, port: int) -> Candidate:
    plan = RolePlan(
        runtime=runtime,
        root=folder.path,
        framework="python" if runtime == PYTHON_RUNTIME else "node",
        install=install,
        start=start[:4000],
        port=port,
    )
    return Candidate(BACKEND, plan)
