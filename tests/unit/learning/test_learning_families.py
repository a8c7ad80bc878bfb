"""What failures are recognised as, and the remedies for them."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.domain.plan import RolePlan
from sandbox.learning.families import FAMILIES, recognise
from sandbox.learning.remedies import Case, Deadlines, apply

VENV = "uv venv --allow-existing --python 3.12"
UV = f"{VENV} && uv pip install -r requirements.txt"
ADD = "uv venv -q --allow-existing --python 3.12 && uv pip install"


def changed(code: str, output: str, given: frozenset[str] = frozenset(), **plan: Any) -> dict[str, Any]:
    """The fields of the plan that the remedy for this failure changes."""
    finding = recognise(code, f"main: {output}", output)
    role = RolePlan.model_validate({"runtime": "python312", "framework": "x", "start": "x", "port": 8000} | plan)
    change = apply(finding.family, Case(role, finding.particulars, given, Deadlines(900, 120)))
    if change is None:
        return {}
    before, after = role.model_dump(), change.plan.model_dump()
    return {name: value for name, value in after.items() if before.get(name) != value}


@pytest.mark.parametrize(
    ("code", "output", "plan", "expected"),
    [
        (
            "app_exited",
            "ModuleNotFoundError: No module named 'PIL'",
            {"install": UV},
            {"install": f"{UV} && {ADD} pillow"},
        ),
        ("app_exited", "ModuleNotFoundError: No module named 'a_b.c'", {}, {"install": f"{ADD} a-b"}),
        (
            "app_exited",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package '@a/b' imported from /workspace/x.js",
            {"runtime": "node20", "install": "npm ci"},
            {"install": "npm ci && npm install --no-save --no-audit --no-fund @a/b"},
        ),
        ("app_exited", "Error: Cannot find module './missing'", {"runtime": "node20"}, {}),
        (
            "app_exited",
            "sh: 1: vite: not found",
            {"runtime": "node20", "install": "pnpm install"},
            {"install": "pnpm install && pnpm add vite"},
        ),
        ("app_exited", "/bin/sh: 1: exec: gunicorn: not found", {}, {"install": f"{ADD} gunicorn"}),
        ("app_exited", "sh: 1: ffmpeg: not found", {}, {}),
        (
            "app_exited",
            '  File "/workspace/app.py", line 1, in <module>\n    import cv2\n  File "/workspace/.venv/lib/python3.12/'
            'site-packages/cv2/__init__.py", line 181, in <module>\n    bootstrap()\n'
            "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
            {"install": UV},
            {
                "install": f"{UV} && uv pip uninstall -q opencv-python opencv-contrib-python"
                " && uv pip install opencv-contrib-python-headless"
            },
        ),
        ("app_exited", "ImportError: libGL.so.1: cannot open shared object file", {"install": UV}, {}),
        ("app_exited", "KeyError: 'API_KEY'", {}, {"env": {"API_KEY": "sandbox-stand-in-value"}}),
        ("app_exited", "KeyError: 'API_KEY'", {"env": {"API_KEY": "mine"}}, {}),
        ("app_exited", "KeyError: 'name'", {}, {}),
        ("app_exited", "Error: DATABASE_URL is not set", {}, {"env": {"DATABASE_URL": "sqlite:///./sandbox.db"}}),
        ("app_exited", "Error: Missing required environment variable: APP_PORT", {}, {"env": {"APP_PORT": "1"}}),
        (
            "app_exited",
            "Error: listen EADDRNOTAVAIL: address not available 10.1.2.3:3000",
            {"start": "next start --host 10.1.2.3"},
            {"start": "next start --host 0.0.0.0", "env": {"HOST": "0.0.0.0", "HOSTNAME": "0.0.0.0"}},
        ),
        (
            "dependency_install_failed",
            "npm error `npm ci` can only install packages when your package.json and package-lock.json or "
            "npm-shrinkwrap.json are in sync.",
            {"runtime": "node20", "install": "npm ci"},
            {"install": "npm install"},
        ),
        (
            "dependency_install_failed",
            "ERR_PNPM_OUTDATED_LOCKFILE  Cannot install",
            {"runtime": "node20", "install": "pnpm install --frozen-lockfile"},
            {"install": "pnpm install --no-frozen-lockfile"},
        ),
        (
            "dependency_install_failed",
            "npm error code ERESOLVE",
            {"runtime": "node20", "install": "npm install"},
            {"install": "npm install --legacy-peer-deps"},
        ),
        (
            "dependency_install_failed",
            "npm error notarget No matching version found for left-pad@99.0.0.",
            {"runtime": "node20", "install": "npm ci"},
            {
                "install": "npm pkg delete devDependencies.left-pad && npm pkg set dependencies.left-pad=latest"
                " && npm install"
            },
        ),
        (
            "dependency_install_failed",
            "cause: Because there is no version of flask==99.0 and you require flask==99.0, we can conclude that",
            {"install": UV},
            {
                "install": "echo flask > .sandbox-override-flask.txt && "
                f"{VENV} && uv pip install --override .sandbox-override-flask.txt -r requirements.txt"
            },
        ),
        (
            "dependency_install_failed",
            "And because you require werkzeug<2, we can conclude that your requirements are unsatisfiable.",
            {"install": UV},
            {
                "install": "echo werkzeug > .sandbox-override-werkzeug.txt && "
                f"{VENV} && uv pip install --override .sandbox-override-werkzeug.txt -r requirements.txt"
            },
        ),
        (
            "dependency_install_failed",
            "Because the current Python version (3.12.1) does not satisfy Python>=3.13,<4 and a-b==4.0.0 depends on "
            "Python>=3.13,<4, we can conclude that a-b==4.0.0 cannot be used.",
            {"install": UV},
            {
                "install": "echo a-b > .sandbox-override-a-b.txt && "
                f"{VENV} && uv pip install --override .sandbox-override-a-b.txt -r requirements.txt"
            },
        ),
        (
            "dependency_install_failed",
            "error: Failed to build `numpy==1.19.0`\nModuleNotFoundError: No module named 'distutils'",
            {"install": UV},
            {
                "install": "echo numpy > .sandbox-override-numpy.txt && "
                f"{VENV} && uv pip install --override .sandbox-override-numpy.txt -r requirements.txt"
            },
        ),
        (
            "dependency_install_failed",
            "error: The Python request from `--python 3.12` resolved to Python 3.12.1, which is incompatible with the "
            "project's Python requirement: `>=3.13`",
            {"install": "uv sync --python 3.12 --extra web && uv pip install gunicorn"},
            {
                "install": "uv venv -q --allow-existing --python 3.12 && uv pip install -r pyproject.toml --extra web"
                " && uv pip install gunicorn"
            },
        ),
        (
            "dependency_install_failed",
            "Because the current Python version (3.12.1) does not satisfy Python>=3.13 and a 0.1 asks for it",
            {"install": f"{VENV} && uv pip install --editable ."},
            {"install": f"{VENV} && python -m pip --python .venv install --ignore-requires-python --editable ."},
        ),
        (
            "dependency_install_failed",
            "Error [ERR_UNKNOWN_BUILTIN_MODULE]: No such built-in module: node:sqlite",
            {"runtime": "node20", "install": "pnpm install", "env": {"npm_config_package_manager_strict": "true"}},
            {
                "env": {
                    "COREPACK_ENABLE_PROJECT_SPEC": "0",
                    "npm_config_manage_package_manager_versions": "false",
                    "npm_config_package_manager_strict": "true",
                },
            },
        ),
        (
            "dependency_install_failed",
            "Current Python version (3.12.1) is not allowed by the project (^3.13).",
            {
                "install": f"{VENV} && uvx --with poetry-plugin-export poetry export -o .venv/requirements.txt"
                " && uv pip install -r .venv/requirements.txt gunicorn"
            },
            {"install": f"{VENV} && uv pip install -r pyproject.toml gunicorn"},
        ),
        (
            "dependency_install_failed",
            "ERR_PNPM_UNSUPPORTED_ENGINE  Unsupported environment (bad pnpm and/or Node.js version)",
            {"runtime": "node20", "install": "pnpm install"},
            {
                "install": "npm pkg delete engines.pnpm && pnpm install",
                "env": {"npm_config_engine_strict": "false"},
            },
        ),
        (
            "dependency_install_failed",
            "npm ERR! code EBADENGINE",
            {"runtime": "node20", "install": "npm ci"},
            {"env": {"npm_config_engine_strict": "false"}},
        ),
        (
            "app_exited",
            "code: 'ERR_OSSL_EVP_UNSUPPORTED'",
            {"runtime": "node20"},
            {"env": {"NODE_OPTIONS": "--openssl-legacy-provider"}},
        ),
        (
            "dependency_install_timeout",
            "main: `x` had not finished",
            {"install": "x"},
            {"install_timeout_seconds": 2700},
        ),
        ("port_not_opened", "nothing listened", {}, {"health_timeout_seconds": 360}),
        ("port_not_opened", "nothing listened", {"health_timeout_seconds": 20}, {}),
        ("other_port_opened", "the plan says port 8000, but the app listens on port 5000", {}, {"port": 5000}),
        ("other_port_opened", "the plan says port 8000, but the app listens on port 5000", {"framework": None}, {}),
    ],
)
def test_a_failure_has_its_remedy(code: str, output: str, plan: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changed(code, output, **plan) == expected


def test_a_variable_that_the_caller_set_stays() -> None:
    assert changed("app_exited", "KeyError: 'API_KEY'", frozenset({"API_KEY"})) == {}


def test_requirements_in_latin_1_are_decoded() -> None:
    output = "error: failed to decode file `requirements.txt`: stream did not contain valid UTF-8"
    install = changed("dependency_install_failed", output, install=UV)["install"]
    assert install.startswith("python -c ")
    assert install.endswith(f" && {UV}")


def test_a_remedy_is_applied_once() -> None:
    output = "ModuleNotFoundError: No module named 'yaml'"
    install = changed("app_exited", output, install=UV)["install"]
    assert changed("app_exited", output, install=install) == {}


def test_an_unknown_failure_has_a_signature_without_particulars() -> None:
    first = recognise("app_exited", "main: `x` ended:\nOSError: bad file /workspace/a/b.txt at line 12 (id 3f2504e0)")
    second = recognise("app_exited", "main: `y` ended:\nOSError: bad file /srv/c/d.txt at line 7 (id 9b1d7bcd)")
    assert first == second
    assert first.signature == "app_exited: OSError: bad file <path> at line <n> (id <hash>)"
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
