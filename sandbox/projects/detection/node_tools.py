"""Development servers of user interfaces and of documentation, by the program that a script or a person calls."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tool:
    """A development server."""

    framework: str
    #: Name of the npm package that contains it.
    package: str
    #: Default port.
    port: int
    #: Arguments that set the address and port to listen on.
    flags: str
    #: The sub-commands that start the server; "" if it starts without one. The first is used if there is no script.
    commands: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


_HOST_PORT = "--host 0.0.0.0 --port {port}"
_VUEPRESS_PORT = 8080

#: By name of the program. If no script starts one of them, the packages are searched in this order.
TOOLS: dict[str, Tool] = {
    "next": Tool(
        "next", "next", 3000, "--hostname 0.0.0.0 --port {port}", ("dev",), (("NEXT_TELEMETRY_DISABLED", "1"),)
    ),
    "nuxt": Tool("nuxt", "nuxt", 3000, _HOST_PORT, ("dev",), (("NUXT_TELEMETRY_DISABLED", "1"),)),
    "nuxi": Tool("nuxt", "nuxt", 3000, _HOST_PORT, ("dev",), (("NUXT_TELEMETRY_DISABLED", "1"),)),
    "astro": Tool("astro", "astro", 4321, _HOST_PORT, ("dev",), (("ASTRO_TELEMETRY_DISABLED", "1"),)),
    "react-router": Tool("react-router", "@react-router/dev", 5173, _HOST_PORT, ("dev",)),
    "remix": Tool("remix", "@remix-run/dev", 5173, _HOST_PORT, ("vite:dev",)),
    "vinxi": Tool("vinxi", "vinxi", 3000, _HOST_PORT, ("dev",)),
    "waku": Tool("waku", "waku", 3000, _HOST_PORT, ("dev",)),
    "vitepress": Tool("vitepress", "vitepress", 5173, _HOST_PORT, ("dev",)),
    "docusaurus": Tool("docusaurus", "@docusaurus/core", 3000, f"{_HOST_PORT} --no-open", ("start",)),
    "vuepress": Tool("vuepress", "vuepress", _VUEPRESS_PORT, _HOST_PORT, ("dev",)),
    "vuepress-vite": Tool("vuepress", "@vuepress/bundler-vite", _VUEPRESS_PORT, _HOST_PORT, ("dev",)),
    "vuepress-webpack": Tool("vuepress", "@vuepress/bundler-webpack", _VUEPRESS_PORT, _HOST_PORT, ("dev",)),
    "react-scripts": Tool(
        "create-react-app", "react-scripts", 3000, "", ("start",),
        # The page connects its WebSocket to the preview's port. The preview checks hosts and callers itself.
        (("WDS_SOCKET_PORT", "0"), ("DANGEROUSLY_DISABLE_HOST_CHECK", "true")),
    ),
    "vue-cli-service": Tool("vue-cli", "@vue/cli-service", 8080, _HOST_PORT, ("serve",)),
    "ng": Tool("angular", "@angular/cli", 4200, _HOST_PORT, ("serve",), (("NG_CLI_ANALYTICS", "false"),)),
    "gatsby": Tool("gatsby", "gatsby", 8000, _HOST_PORT, ("develop",), (("GATSBY_TELEMETRY_DISABLED", "1"),)),
    "quasar": Tool("quasar", "@quasar/app-vite", 9000, "--hostname 0.0.0.0 --port {port}", ("dev",)),
    "ember": Tool("ember", "ember-cli", 4200, _HOST_PORT, ("serve", "server", "s")),
    "expo": Tool("expo", "expo", 8081, "--web --port {port}", ("start",), (("EXPO_NO_TELEMETRY", "1"),)),
    "umi": Tool("umi", "umi", 8000, "", ("dev",)),
    "max": Tool("umi", "@umijs/max", 8000, "", ("dev",)),
    "dumi": Tool("dumi", "dumi", 8000, "", ("dev",)),
    "modern": Tool("modern.js", "@modern-js/app-tools", 8080, "", ("dev",)),
    "ice": Tool("ice", "@ice/app", 3000, "--host 0.0.0.0 --port {port} --no-open", ("start",)),
    "farm": Tool("farm", "@farmfe/cli", 9000, _HOST_PORT, ("start", "dev", "")),
    "rsbuild": Tool("rsbuild", "@rsbuild/core", 3000, _HOST_PORT, ("dev", "")),
    "rspress": Tool("rspress", "rspress", 3000, _HOST_PORT, ("dev", "")),
    "rspack": Tool("rspack", "@rspack/cli", 8080, _HOST_PORT, ("serve", "server", "s", "dev")),
    "stencil": Tool("stencil", "@stencil/core", 3333, "--no-open", ("build --dev --watch --serve", "build")),
    "wrangler": Tool("wrangler", "wrangler", 8787, "--ip 0.0.0.0 --port {port}", ("dev",)),
    "sanity": Tool("sanity", "sanity", 3333, _HOST_PORT, ("dev", "start")),
    "eleventy": Tool("eleventy", "@11ty/eleventy", 8080, "--serve --port={port}", ("",)),
    "hexo": Tool("hexo", "hexo", 4000, "-p {port}", ("server", "s", "serve")),
    "slidev": Tool("slidev", "@slidev/cli", 3030, "--port {port}", ("",)),
    "docsify": Tool("docsify", "docsify-cli", 3000, "--port {port}", ("serve",)),
    "storybook": Tool(
        "storybook", "storybook", 6006, f"{_HOST_PORT} --ci", ("dev",), (("STORYBOOK_DISABLE_TELEMETRY", "1"),)
    ),
    "vite": Tool("vite", "vite", 5173, f"{_HOST_PORT} --strictPort", ("", "dev", "serve")),
    "parcel": Tool("parcel", "parcel", 1234, _HOST_PORT, ("", "serve")),
    "webpack": Tool("webpack", "webpack-dev-server", 8080, f"{_HOST_PORT} --allowed-hosts all", ("serve",)),
    "webpack-dev-server": Tool("webpack", "webpack-dev-server", 8080, f"{_HOST_PORT} --allowed-hosts all", ("",)),
    "web-dev-server": Tool("web-dev-server", "@web/dev-server", 8000, "--hostname 0.0.0.0 --port {port}", ("",)),
    "wds": Tool("web-dev-server", "@web/dev-server", 8000, "--hostname 0.0.0.0 --port {port}", ("",)),
    "http-server": Tool("http-server", "http-server", 8080, "-a 0.0.0.0 -p {port}", ("",)),
    "live-server": Tool("live-server", "live-server", 8080, "--host=0.0.0.0 --port={port} --no-browser", ("",)),
    "serve": Tool("serve", "serve", 3000, "-l tcp://0.0.0.0:{port}", ("",)),
}  # fmt: skip

#: Programs that build, check or copy and then end, or that only watch.
_NO_SERVERS = frozenset({
    "tsc", "eslint", "prettier", "biome", "jest", "vitest", "mocha", "ava", "rimraf", "del-cli", "rm", "cp", "cpx",
    "mkdir", "tsup", "tsdown", "unbuild", "rollup", "babel", "swc", "sass", "postcss", "tailwindcss", "echo", "exit",
    "true", "husky", "lint-staged", "changeset", "np", "copyfiles", "playwright", "cypress", "svelte-check", "vue-tsc",
    "electron", "cd", ":",
})  # fmt: skip
#: Sub-commands with which other programs start no server, unless an option says so.
_NO_SERVER_COMMANDS = frozenset({
    "build", "bundle", "check", "compile", "deploy", "export", "format", "generate", "info", "init", "install", "lint",
    "publish", "test", "upgrade",
})  # fmt: skip
#: What a script starts that runs the scripts of other packages, or several of its own at once.
_DELEGATES = re.compile(
    r"\b(turbo|nx|lerna|concurrently|npm-run-all|run-p|wireit)\b|--filter\b|--workspaces?\b|--prefix\b|(?<!\S)-w\s|"
    r"\bpnpm\s+(-r|--recursive|-F|-C)\b|\bworkspaces?\s+(foreach|run|[\w@./-]+\s)|\bcd\s+[\w.]"
)
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_WRAPPERS = ("cross-env", "npx", "exec", "bunx", "dotenv", "dotenvx", "env-cmd")


def commands_of(script: str) -> list[list[str]]:
    """Split a script into commands and words, without leading assignments and wrappers (`cross-env A=b`, `npx`)."""
    commands = []
    for part in re.split(r"&&|\|\||;|(?<!&)&(?!&)", script):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        while words and (_ASSIGNMENT.match(words[0]) or words[0] in _WRAPPERS or words[0] == "--"):
            words.pop(0)
        if words:
            commands.append(words)
    return commands


def tool_of(words: list[str]) -> Tool | None:
    """Return the tool that a command starts as a server, or None."""
    tool = TOOLS.get(words[0].rpartition("/")[2])
    if tool is None:
        return None
    command = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    if tool.framework == "stencil":
        return tool if "--serve" in words else None
    if tool.framework == "storybook" and command not in tool.commands:
        return None
    if "" in tool.commands and ("." in command or "/" in command):
        return tool  # The argument is the page or the folder to serve.
    # If a tool has no sub-commands, its argument is the folder to serve.
    return tool if command in tool.commands or tool.commands == ("",) else None


def mentions_program(script: str, tool: Tool) -> bool:
    """Return whether a script contains the name of one of the tool's programs, with a sub-command that starts it."""
    for name, known in TOOLS.items():
        if known is not tool:
            continue
        for match in re.finditer(rf"(?<![\w./-]){re.escape(name)}(?![\w./:-])(?:\s+([a-z][\w:-]*))?", script):
            if not match[1] or match[1] in tool.commands or "" in tool.commands[1:] or tool.commands == ("",):
                return True
    return False


def program_of(tool: Tool) -> str:
    """Return the name of the tool's program."""
    return next(name for name, known in TOOLS.items() if known is tool)


def may_serve(script: str) -> bool:
    """Return whether a script may start a server: at least one of its commands is not known to start none."""
    return any(_may_serve(words) for words in commands_of(script))


def _may_serve(words: list[str]) -> bool:
    if words[0].rpartition("/")[2] in _NO_SERVERS:
        return False
    return len(words) < 2 or words[1] not in _NO_SERVER_COMMANDS or "--serve" in words


def delegates(script: str) -> bool:
    """Return whether a script runs scripts of other packages, or several at once."""
    return bool(_DELEGATES.search(script))
