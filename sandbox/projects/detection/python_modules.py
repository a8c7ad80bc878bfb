"""Finds the web apps in Python modules by parsing them. The modules are not run."""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sandbox.projects.source import Folder

#: Classes whose instances are apps, and their frameworks.
_APP_CLASSES = {
    "fastapi.FastAPI": "fastapi",
    "fastapi.applications.FastAPI": "fastapi",
    "starlette.applications.Starlette": "starlette",
    "quart.Quart": "quart",
    "litestar.Litestar": "litestar",
    "flask.Flask": "flask",
    "flask.app.Flask": "flask",
}
#: Names of functions that start a server and have the port as an argument.
_SERVING_CALLS = frozenset(
    {"run", "run_app", "run_server", "run_simple", "serve", "launch", "listen", "start_server", "make_server", "Config"}
)
_SERVER_CLASSES = ("HTTPServer", "TCPServer", "WSGIServer")

_FIRST_NAMES = ("main", "app", "server", "api", "asgi", "wsgi", "application", "run", "index", "web", "__init__")
_SKIPPED_FOLDERS = frozenset({"tests", "test", "migrations", "alembic", "docs", "examples", "scripts", "site-packages"})
_MAX_DEPTH = 3
#: While Python parses a module, no other thread runs. Therefore larger modules are skipped, and the total is limited.
_MAX_MODULE_BYTES = 128 * 1024
_MAX_TOTAL_CHARACTERS = 4 << 20

#: The filters of `warnings` are global to the process.
_WARNINGS = threading.Lock()


@dataclass(slots=True)
class Module:
    """What is known about one module. Names are those at module level."""

    path: str
    text: str
    #: Dotted names of all absolute imports.
    imports: set[str] = field(default_factory=set)
    uses_relative_imports: bool = False
    #: Variable -> framework, for variables that are apps.
    apps: dict[str, str] = field(default_factory=dict)
    #: Function -> framework, for functions without required arguments that return an app.
    factories: dict[str, str] = field(default_factory=dict)
    #: Variable -> name of the function whose result it is.
    results: dict[str, str] = field(default_factory=dict)
    #: Port in the call that starts a server.
    port: int | None = None

    @property
    def packages(self) -> set[str]:
        """Top-level names of the imports."""
        return {name.split(".", 1)[0] for name in self.imports}

    @property
    def folder(self) -> str:
        """Path of the folder that contains the module."""
        return self.path.rpartition("/")[0]


def read_modules(folder: Folder) -> list[Module]:
    """Parse the modules of a folder that may contain an app, the most likely first."""
    paths = [path for path in folder.files if path.endswith(".py") and _may_contain_app(path)]
    modules = []
    left = _MAX_TOTAL_CHARACTERS
    for path in sorted(paths, key=_likeliest_first):
        text = folder.read(path, _MAX_MODULE_BYTES)
        left -= len(text or "")
        if left < 0:
            break
        module = read_module(path, text) if text is not None else None
        if module is not None:
            modules.append(module)
        elif text is not None:
            folder.notes.append(f"{folder.full_path(path)} is not valid Python 3")
    _resolve_results(modules)
    return modules


def read_module(path: str, text: str) -> Module | None:
    """Parse one module. Return None if it is not valid Python."""
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
            framework = _factory_framework(statement, names)
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


def _may_contain_app(path: str) -> bool:
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
    """Record the module's imports, and return the full name that each imported name refers to."""
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
    """Yield the statements that run on import, in order, including those inside `if`, `try` and `with`."""
    waiting = [*body][::-1]
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.If):
            if not _is_main_guard(statement.test):
                waiting += [*statement.body, *statement.orelse][::-1]
        elif isinstance(statement, ast.Try):
            waiting += [*statement.body, *statement.orelse, *statement.finalbody][::-1]
        elif isinstance(statement, ast.With):
            waiting += statement.body[::-1]
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


def _factory_framework(function: ast.FunctionDef, names: dict[str, str]) -> str | None:
    """Return the framework of the app that a function creates, if it can be called without arguments."""
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
    """Return the full name that an expression such as `web.FastAPI` refers to, or None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def _resolve_results(modules: list[Module]) -> None:
    """Add the variables that are results of factories, such as `app = create_app()`, in any of the modules."""
    factories = {name: framework for module in modules for name, framework in module.factories.items()}
    for module in modules:
        for variable, function in module.results.items():
            if function in factories and variable not in module.apps:
                module.apps[variable] = factories[function]


def _find_port(tree: ast.Module, constants: dict[str, int]) -> int | None:
    """Return the port in the first call that starts a server, or None."""
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
    """Evaluate a number, the name of a constant, `int(…)` or `os.environ.get("PORT", …)`. Return None for others."""
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
