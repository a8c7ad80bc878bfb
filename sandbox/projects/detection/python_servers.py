"""Python frameworks whose apps are started by a program of the framework, and site generators with a settings file."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from sandbox.projects.detection.python_modules import Module
from sandbox.projects.source import Folder


@dataclass(frozen=True, slots=True)
class PageServer:
    """A program that serves a module."""

    framework: str
    #: The import that shows that a module is an app of the framework.
    imported: str
    command: str
    port: int
    #: Text that the module contains if it is the app itself. None: the import is enough.
    marker: str | None = None
    health: str = "/"


@dataclass(frozen=True, slots=True)
class Server:
    """A start command that was found, with the packages that it requires."""

    framework: str
    start: str
    port: int
    needs: dict[str, str]
    health: str = "/"
    text: str = ""


_PAGE_SERVERS = (
    PageServer(
        "streamlit",
        "streamlit",
        "streamlit run {path} --server.port {port} --server.address 0.0.0.0 --server.headless true "
        "--server.enableCORS false --server.enableXsrfProtection false --browser.gatherUsageStats false",
        8501,
        health="/_stcore/health",
    ),
    PageServer("chainlit", "chainlit", "chainlit run {path} --host 0.0.0.0 --port {port} --headless", 8000),
    PageServer("shiny", "shiny", "shiny run {path} --host 0.0.0.0 --port {port} --reload", 8000),
    PageServer("solara", "solara", "solara run {path} --host 0.0.0.0 --port {port} --no-open", 8765),
    PageServer("mesop", "mesop", "mesop {path} --port {port}", 32123, marker="page("),
    PageServer("marimo", "marimo", "marimo run {path} --host 0.0.0.0 --port {port} --headless", 2718, marker="App("),
    PageServer(
        "panel",
        "panel",
        "panel serve {path} --address 0.0.0.0 --port {port} --allow-websocket-origin='*' --dev",
        5006,
        marker="servable(",
    ),
    PageServer(
        "bokeh",
        "bokeh",
        "bokeh serve {path} --address 0.0.0.0 --port {port} --allow-websocket-origin='*' --dev",
        5006,
        marker="curdoc(",
    ),
    PageServer("flet", "flet", "flet run --web --port {port} {path}", 8550, marker="main"),
)
_PAGE_NAMES = ("streamlit_app", "app", "main", "Home", "home", "dashboard", "Hello", "index")
_SITE_PORT = 8000
_NOTEBOOK_PORT = 8888
_MATERIAL = re.compile(r"\bname:\s*[\"']?material\b|^theme:\s*[\"']?material\b", re.MULTILINE)
_NIKOLA = re.compile(r"^(BLOG_TITLE|BLOG_AUTHOR|COMPILERS)\s*=", re.MULTILINE)
_SPHINX = re.compile(r"^(extensions|html_theme|project)\s*=", re.MULTILINE)


def page_server(modules: list[Module]) -> Server | None:
    """Return the server of the module that is the app of such a framework, or None."""
    for known in _PAGE_SERVERS:
        pages = [
            module
            for module in modules
            if known.imported in module.packages
            and not module.apps
            and "pages" not in module.folder.split("/")
            and (known.marker is None or known.marker in module.text)
        ]
        if pages:
            page = min(pages, key=_likeliest_page)
            start = known.command.format(path=shlex.quote(page.path), port=known.port)
            return Server(known.framework, start, known.port, {known.imported: known.imported}, known.health, page.text)
    return None


def _likeliest_page(module: Module) -> tuple[int, int, str]:
    stem = module.path.rpartition("/")[2][:-3]
    order = _PAGE_NAMES.index(stem) if stem in _PAGE_NAMES else len(_PAGE_NAMES)
    return module.path.count("/"), order, module.path


def site_server(folder: Folder) -> Server | None:
    """Return the server of a site generator whose settings file is in the folder, or None."""
    for name in ("mkdocs.yml", "mkdocs.yaml"):
        if folder.has(name):
            needs = {"mkdocs": "mkdocs"}
            if _MATERIAL.search(folder.read(name) or ""):
                needs = {"mkdocs-material": "mkdocs-material"}
            return Server("mkdocs", f"mkdocs serve --dev-addr 0.0.0.0:{_SITE_PORT}", _SITE_PORT, needs)
    if _NIKOLA.search(folder.read("conf.py") or ""):
        start = f"nikola build && exec nikola auto --address 0.0.0.0 --port {_SITE_PORT}"
        # The server that builds the site anew is an optional part of Nikola.
        return Server("nikola", start, _SITE_PORT, {name: name for name in ("nikola", "aiohttp", "watchdog")})
    if folder.has("pelicanconf.py"):
        start = f"pelican --autoreload --listen --bind 0.0.0.0 --port {_SITE_PORT}"
        return Server("pelican", start, _SITE_PORT, {"pelican": "pelican[markdown]"})
    if any(name.endswith(".lektorproject") for name in folder.names):
        return Server("lektor", "lektor server --host 0.0.0.0 --port 5000", 5000, {"lektor": "lektor"})
    if "pyramid" in (folder.read("development.ini") or ""):
        return Server("pyramid", "pserve development.ini --reload", 6543, {"pyramid": "pyramid"})
    return _sphinx(folder)


def notebook_server(folder: Folder) -> Server | None:
    """Return JupyterLab for a folder that contains notebooks."""
    if not any(name.endswith(".ipynb") for name in folder.names):
        return None
    # The preview has its own sign-in, so Jupyter needs none.
    start = f"jupyter lab --ip 0.0.0.0 --port {_NOTEBOOK_PORT} --no-browser --IdentityProvider.token=''"
    return Server("jupyter", start, _NOTEBOOK_PORT, {"jupyterlab": "jupyterlab"})


def _sphinx(folder: Folder) -> Server | None:
    for source in (".", "source", "docs", "docs/source", "doc"):
        path = "conf.py" if source == "." else f"{source}/conf.py"
        text = folder.read(path) or ""
        if not _SPHINX.search(text) or not any(folder.has(f"{path[:-7]}index.{kind}") for kind in ("rst", "md")):
            continue
        build = "_build/html" if source == "." else f"{source}/_build/html"
        start = f"sphinx-autobuild {source} {build} --host 0.0.0.0 --port {_SITE_PORT}"
        needs = {"sphinx": "sphinx", "sphinx-autobuild": "sphinx-autobuild"}
        theme = re.search(r"^html_theme\s*=\s*[\"']([\w-]+)[\"']", text, re.MULTILINE)
        if theme and theme[1] not in ("alabaster", "classic", "basic"):
            needs[theme[1].replace("_", "-")] = theme[1].replace("_", "-")
        listed = re.search(r"^extensions\s*=\s*\[([^\]]{0,4000})\]", text, re.MULTILINE)
        for extension in re.findall(r"[\"']([a-z]\w*)[\w.]*[\"']", listed[1] if listed else ""):
            if extension != "sphinx":
                needs[extension.replace("_", "-")] = extension.replace("_", "-")
        return Server("sphinx", start, _SITE_PORT, needs)
    return None
