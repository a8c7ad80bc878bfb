"""Finds the web apps in Python modules by parsing them. The modules are not run."""

from __future__ import annotations

import ast
import re
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
    "starlette.applications.Router": "starlette",
    "quart.Quart": "quart",
    "quart.app.Quart": "quart",
    "litestar.Litestar": "litestar",
    "litestar.app.Litestar": "litestar",
    "blacksheep.Application": "blacksheep",
    "falcon.asgi.App": "falcon",
    "fasthtml.FastHTML": "fasthtml",
    "fasthtml.common.FastHTML": "fasthtml",
    "connexion.AsyncApp": "connexion",
    "connexion.FlaskApp": "connexion",
    "sanic.Sanic": "sanic",
    "flask.Flask": "flask",
    "flask.app.Flask": "flask",
    "apiflask.APIFlask": "flask",
    "flask_openapi3.OpenAPI": "flask",
}
#: Imports and assignments of calls, in modules that cannot be parsed.
_ROUGH_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+([^\n#]+)|import[ \t]+([^\n#]+))", re.MULTILINE
)
_ROUGH_APP = re.compile(r"^(\w+)[ \t]*(?::[^=\n]{1,100})?=[ \t]*([\w.]{1,100})\(", re.MULTILINE)
_ROUGH_NAME = re.compile(r"([\w.]+)(?:\s+as\s+(\w+))?")
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
    #: Whether it contains a call that starts a server.
    serves: bool = False
    #: Whether an import of it starts a server: `app.run()` or `uvicorn.run(app)` at module level.
    serves_on_import: bool = False

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
        if text is None:
            continue
        module = read_module(path, text)
        if module is None:
            # It is launched all the same: the app's own error names the line.
            folder.notes.append(f"{folder.full_path(path)} is not valid Python 3")
            module = _read_roughly(path, text)
        modules.append(module)
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
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            runner = _dotted(statement.value.func, names) or ""
            if runner in ("uvicorn.run", *(f"{variable}.run" for variable in module.apps)):
                module.serves_on_import = True
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
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    module.serves = any(_called(call) in _SERVING_CALLS for call in calls)
    module.port = _find_port(calls, constants)
    return module


def _read_roughly(path: str, text: str) -> Module:
    """Return what the lines of a module that cannot be parsed show: its imports, and variables that are apps."""
    module = Module(path, text)
    names: dict[str, str] = {}
    for match in _ROUGH_IMPORT.finditer(text):
        prefix = f"{match[1]}." if match[1] else ""
        if prefix.startswith("."):
            module.uses_relative_imports = True
            continue
        for name, alias in _ROUGH_NAME.findall(match[2] or match[3]):
            module.imports.add(f"{prefix}{name}")
            bound = name if prefix else name.split(".", 1)[0]
            names[alias or bound] = f"{prefix}{name if alias else bound}"
    for variable, called in _ROUGH_APP.findall(text):
        first, dot, rest = called.partition(".")
        framework = _APP_CLASSES.get(f"{names.get(first, first)}{dot}{rest}")
        if framework is not None:
            module.apps[variable] = framework
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


def _called(call: ast.Call) -> str:
    """Return the last part of the name of what is called; "" if it has no name."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else str(getattr(call.func, "id", ""))


def _find_port(calls: list[ast.Call], constants: dict[str, int]) -> int | None:
    """Return the port in the first call that starts a server, or None."""
    for node in calls:
        called = _called(node)
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
    if isinstance(node, ast.Call) and node.args and _called(node) in ("int", "get", "getenv"):
        return _number(node.args[-1], constants)
    return None
