"""Finds addresses such as `http://localhost:8000` in the code of the page that the preview shows.

A page that asks localhost works on its developer's machine. In a preview the visitor's browser asks the visitor's own
machine. The page cannot be changed on its way, so a warning names the line and what to write in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sandbox.domain.observations import LaunchWarning, WarningCode
from sandbox.domain.plan import LaunchPlan
from sandbox.engine.guest import Guest
from sandbox.errors import GuestError
from sandbox.launch.environment import role_root

#: Frameworks whose code runs in the browser, and those of which a part does.
_IN_BROWSER = frozenset({
    "vite", "create-react-app", "vue-cli", "angular", "parcel", "webpack", "rsbuild", "rspack", "farm", "ember",
    "quasar", "expo", "stencil", "web-dev-server", "http-server", "live-server", "serve", "static",
})  # fmt: skip
_PARTLY = frozenset({"next", "nuxt", "astro", "react-router", "remix", "vinxi", "waku", "gatsby", "umi", "ice"})
_CODE = ("html", "js", "mjs", "jsx", "ts", "mts", "tsx", "vue", "svelte", "astro")
#: Files with variables that build tools put into the code of pages.
_VARIABLES = (".env", ".env.local", ".env.development", ".env.development.local")
#: Folders of a server whose scripts it sends to browsers as they are.
_PUBLIC = ("static", "public", "templates", "assets", "www", "client", "frontend")
_SKIPPED_FOLDERS = (
    "node_modules", ".git", ".venv", "venv", "dist", "build", "out", "coverage", "test", "tests", "__tests__", "e2e",
    "cypress", ".next", ".nuxt", ".output", ".svelte-kit", ".angular", ".astro", ".cache",
)  # fmt: skip
_SKIPPED_FILES = (
    "*.config.*",
    "*.conf.*",
    "*.test.*",
    "*.spec.*",
    "*.stories.*",
    "server.*",
    "setupProxy.*",
    "*.min.*",
)
SEARCH_SECONDS = 5.0
_MAX_OUTPUT = 64 * 1024
_FOUND = re.compile(r"^(?:\./)?(?P<file>[^:\n]+):(?P<number>\d+):(?P<code>.*)$")
_ADDRESS = r"(?:https?|wss?)://(?:localhost|127\.0\.0\.1|0\.0\.0\.0):(?P<port>\d{2,5})"
#: Lines that only print an address.
_PRINTS = re.compile(r"\bconsole\.|\blog(?:ger)?[.(]|^\s*(?://|\*|<!--)")
#: Variables that build tools put into the code of pages.
_VARIABLE = re.compile(
    r"\b(?:VITE|NEXT_PUBLIC|REACT_APP|VUE_APP|NUXT_PUBLIC|PUBLIC|EXPO_PUBLIC|GATSBY)_[A-Z0-9_]{1,60}\b"
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A line of the page's code, and the address in it."""

    file: str
    number: str
    address: str
    port: int
    #: The variable that takes the address's place if it is set; "" if the line names none.
    variable: str


async def local_addresses(
    guest: Guest, plan: LaunchPlan, ports: Iterable[int], preview_url: Callable[[int], str]
) -> list[LaunchWarning]:
    """One warning for each of these ports that the page's code asks at localhost.

    Args:
        guest: That of the role which the preview shows.
        ports: The ports of the session's apps, also those under which the roles expect them.
        preview_url: The URL at which a browser reaches a port.

    Raises GuestError if the guest agent does not answer.
    """
    role = plan.preview_role
    if role is None:
        return []
    shown = plan.roles[role]
    is_built = shown.framework in _IN_BROWSER | _PARTLY
    # The development server of a page may name its own address. What a server sends as it is has no use for it.
    searched = {port for port in ports if port != shown.port or not is_built or shown.framework == "static"}
    lines = sorted(await _search(guest, role_root(plan, role), searched, is_built=is_built)) if searched else []
    places: dict[int, list[_Place]] = {}
    for place in _places(lines, plan, role, searched):
        if not place.variable or not await _is_set(guest, plan, role, place.variable):
            places.setdefault(place.port, []).append(place)
    return [
        _warning(role, found, preview_url(port).rstrip("/") if port != shown.port else None)
        for port, found in sorted(places.items())
    ]


async def _search(guest: Guest, root: str, ports: set[int], *, is_built: bool) -> list[str]:
    """The lines of the role's code that may be meant, as grep prints them: all of a page that is built, and what a
    server sends as it is."""
    pattern = rf"(https?|wss?)://(localhost|127\.0\.0\.1|0\.0\.0\.0):({'|'.join(map(str, sorted(ports)))})([^0-9]|$)"

    async def grep(names: Iterable[str], *folders: str) -> list[str]:
        # Of the options that match a name the last one counts.
        chosen = [*(f"--include={name}" for name in names), *(f"--exclude={name}" for name in _SKIPPED_FILES)]
        chosen += [f"--exclude-dir={name}" for name in _SKIPPED_FOLDERS]
        return await _output(guest, ["grep", "-rnIEs", "--max-count=3", *chosen, pattern, *folders], root)

    if is_built:
        return await grep((*(f"*.{suffix}" for suffix in _CODE), *_VARIABLES), ".")
    return await grep(("*.html",), ".") + await grep(("*.js",), *_PUBLIC)


async def _is_set(guest: Guest, plan: LaunchPlan, role: str, variable: str) -> bool:
    """Whether the variable has another value than an address on localhost, in the environment of the role's app or in a
    file that build tools read."""
    if variable in plan.roles[role].env:
        return True
    command = f'printenv {variable}; grep -hsE "^(export )?{variable}=." {" ".join(_VARIABLES)}'
    return any(not re.search(_ADDRESS, line) for line in await _output(guest, command, role_root(plan, role)))


async def _output(guest: Guest, command: str | list[str], folder: str) -> list[str]:
    """What a command prints; nothing if it cannot be run."""
    try:
        result = await guest.exec(command, cwd=folder, timeout_seconds=SEARCH_SECONDS, max_output_bytes=_MAX_OUTPUT)
    except GuestError as error:
        if error.code == "agent_unreachable":
            raise
        return []
    return result.stdout.decode("utf-8", "replace").splitlines()


def _places(lines: Iterable[str], plan: LaunchPlan, role: str, ports: set[int]) -> list[_Place]:
    own = role_root(plan, role)
    others = [f"{role_root(plan, other)}/".removeprefix(f"{own}/") for other in plan.roles if other != role]
    found = []
    for line in lines:
        match = _FOUND.match(line)
        if match is None or _PRINTS.search(match["code"]) or match["file"].startswith(tuple(filter(None, others))):
            continue
        address = re.search(_ADDRESS, match["code"])
        if address is not None and int(address["port"]) in ports:
            variable = _VARIABLE.search(match["code"])
            file = f"{plan.roles[role].root}/{match['file']}".removeprefix("./")
            name = variable[0] if variable else ""
            found.append(_Place(file, match["number"], address[0], int(address["port"]), name))
    return found


def _warning(role: str, places: list[_Place], url: str | None) -> LaunchWarning:
    """The warning for one port. `url` is the address of another app's port; None for the page's own."""
    first = places[0]
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    message = (
        f"{first.file}:{first.number}{more} names {first.address}, which in a visitor's browser is the visitor's own "
        "computer and not this session"
    )
    if url is None:
        hint = f"Write the path alone, without {first.address}: then the page asks the address that it came from."
        return LaunchWarning(role, WarningCode.LOCAL_ADDRESS, message, hint)
    if first.address.startswith("ws"):
        url = url.replace("http", "ws", 1)
    write = f"{first.variable}={url} in its .env.local" if first.variable else f"{url} in its place"
    hint = f"Write {write}, or a path such as /api that the development server forwards (a proxy in its configuration)."
    return LaunchWarning(role, WarningCode.LOCAL_ADDRESS, message, hint)
