"""Reads Python modules, without running them, for the web app they make."""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sandbox.projects.source import Folder

#: Calls that make an app, and the framework they are of.
_APP_CLASSES = {
    "fastapi.FastAPI": "fastapi",
    "fastapi.applications.FastAPI": "fastapi",
    "starlette.applications.Starlette": "starlette",
    "quart.Quart": "quart",
    "litestar.Litestar": "litestar",
    "flask.Flask": "flask",
    "flask.app.Flask": "flask",
}
#: Calls that take the port a server listens on.
_SERVING_CALLS = frozenset(
    {"run", "run_app", "run_server", "run_simple", "serve", "launch", "listen", "start_server", "make_server", "Config"}
)
_SERVER_CLASSES = ("HTTPServer", "TCPServer", "WSGIServer")

_FIRST_NAMES = ("main", "app", "server", "api", "asgi", "wsgi", "application", "run", "index", "web", "__init__")
_SKIPPED_FOLDERS = frozenset({"tests", "test", "migrations", "alembic", "docs", "examples", "scripts", "site-packages"})
_MAX_DEPTH = 3
#: Python parses a module in one go, while nothing else runs: larger ones are left out, and all together are bounded.
_MAX_MODULE_BYTES = 128 * 1024
_MAX_TEXT = 4 << 20

#: `warnings` has one list of filters for the whole process.
_WARNINGS = threading.Lock()


@dataclass(slots=True)
class Module:
    """What one module shows. Names are as they are at module level."""

    path: str
    text: str
    #: Dotted names of all that is imported, absolute imports only.
    imports: set[str] = field(default_factory=set)
    uses_relative_imports: bool = False
    #: Variable -> framework, for app objects.
    apps: dict[str, str] = field(default_factory=dict)
    #: Function -> framework, for functions that make an app and need no argument.
    factories: dict[str, str] = field(default_factory=dict)
    #: Variable -> name of the function it is the result of.
    results: dict[str, str] = field(default_factory=dict)
    #: Port given to a call that serves.
    port: int | None = None

    @property
    def packages(self) -> set[str]:
        """First parts of what is imported."""
        return {name.split(".", 1)[0] for name in self.imports}

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


def read_modules(folder: Folder) -> list[Module]:
    """The modules of a folder that may hold an app, likeliest first."""
    paths = [path for path in folder.files if path.endswith(".py") and _may_hold_app(path)]
    modules = []
    left = _MAX_TEXT
    for path in sorted(paths, key=_likeliest_first):
        text = folder.read(path, _MAX_MODULE_BYTES)
        left -= len(text or "")
        if left < 0:
            break
        module = read_module(path, text) if text is not None else None
        if module is not None:
            modules.append(module)
        elif text is not None:
            folder.notes.append(f"{folder.place(path)} is not valid Python 3")
    _resolve_results(modules)
    return modules


def read_module(path: str, text: str) -> Module | None:
    """Read one module's text; None if it is not Python."""
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    module = Module(path, text)
    names = _read_imports(tree, module)
    constants: dict[str, int] = {}
    for statement in _module_level(tree.body):
        if isinstance(statement, ast.FunctionDef):
            framework = _made_by(statement, names)
            if framework is not None:
                module.factories[statement.name] = framework
            continue
        for name, value in _assignments(statement):
            _read_assignment(module, name, value, names)
            port = _number(value, constants)
            if port is not None:
                constants[name] = port
    module.port = _find_port(tree, constants)
    return module


def _may_hold_app(path: str) -> bool:
    *folders, name = path.split("/")
    return (
        len(folders) <= _MAX_DEPTH
        and _SKIPPED_FOLDERS.isdisjoint(folders)
        and not any(part.startswith(".") for part in folders)
        and not name.startswith("test_")
        and name not in ("conftest.py", "setup.py", "noxfile.py", "manage.py")
    )


def _likeliest_first(path: str) -> tuple[int, int, str]:
    stem = path.rpartition("/")[2][:-3]
    rank = _FIRST_NAMES.index(stem) if stem in _FIRST_NAMES else len(_FIRST_NAMES)
    return path.count("/"), rank, path


def _read_imports(tree: ast.Module, module: Module) -> dict[str, str]:
    """Note what is imported; returns what each imported name stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imports.add(alias.name)
                names[alias.asname or alias.name.split(".", 1)[0]] = (
                    alias.name if alias.asname else alias.name.split(".", 1)[0]
                )
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                module.uses_relative_imports = True
                continue
            for alias in node.names:
                module.imports.add(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _module_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, in order, also those within `if`, `try` and `with`."""
    for statement in body:
        if isinstance(statement, ast.If):
            if not _is_main_guard(statement.test):
                yield from _module_level([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            yield from _module_level([*statement.body, *statement.orelse, *statement.finalbody])
        elif isinstance(statement, ast.With):
            yield from _module_level(statement.body)
        else:
            yield statement


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value


def _read_assignment(module: Module, name: str, value: ast.expr, names: dict[str, str]) -> None:
    if not isinstance(value, ast.Call):
        return
    called = _dotted(value.func, names)
    if called in _APP_CLASSES:
        module.apps[name] = _APP_CLASSES[called]
    elif called is not None:
        module.results[name] = called.rpartition(".")[2]


def _made_by(function: ast.FunctionDef, names: dict[str, str]) -> str | None:
    """The framework of the app a function makes and returns, if it can be called with nothing."""
    arguments = function.args
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    if required or any(default is None for default in arguments.kw_defaults):
        return None
    nodes = list(ast.walk(function))
    if not any(isinstance(node, ast.Return) and node.value is not None for node in nodes):
        return None
    for node in nodes:
        if isinstance(node, ast.Call):
            framework = _APP_CLASSES.get(_dotted(node.func, names) or "")
            if framework is not None:
                return framework
    return None


def _dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """The full name of what an expression such as `web.FastAPI` refers to."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def _resolve_results(modules: list[Module]) -> None:
    """`app = create_app()` makes an app where `create_app` is a factory of any of these modules."""
    factories = {name: framework for module in modules for name, framework in module.factories.items()}
    for module in modules:
        for variable, function in module.results.items():
            if function in factories and variable not in module.apps:
                module.apps[variable] = factories[function]


def _find_port(tree: ast.Module, constants: dict[str, int]) -> int | None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        candidates: list[ast.expr] = []
        if called in _SERVING_CALLS:
            candidates = [keyword.value for keyword in node.keywords if keyword.arg in ("port", "server_port")]
            candidates += node.args[:1] if called == "listen" else []
        elif called.endswith(_SERVER_CLASSES) and node.args and isinstance(node.args[0], ast.Tuple):
            candidates = node.args[0].elts[1:2]
        for candidate in candidates:
            port = _number(candidate, constants)
            if port is not None and 1 <= port <= 65535:
                return port
    return None


def _number(node: ast.expr, constants: dict[str, int]) -> int | None:
    """The whole number an expression comes to: itself, a constant's name, `int(…)`, `os.environ.get("PORT", …)`."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            return node.value
        is_number = (
            isinstance(node.value, str) and node.value.isascii() and node.value.isdigit() and len(node.value) < 6
        )
        return int(node.value) if is_number else None  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.BoolOp):
        return _number(node.values[-1], constants)
    if isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("int", "get", "getenv"):
            return _number(node.args[-1], constants)
    return None
