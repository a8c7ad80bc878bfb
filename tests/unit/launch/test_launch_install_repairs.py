"""Which second command follows an install that failed."""

import pytest

from sandbox.launch.install_repairs import second_attempt

VENV = "uv venv --allow-existing && "
OTHER_PYTHON = (
    "error: The requested interpreter resolved to Python 3.12.1, which is incompatible with the project's Python "
    "requirement: `>=3.13` (from `project.requires-python`)"
)
NOT_BUILT = "  × Failed to build `x @ file:///workspace`"


@pytest.mark.parametrize(
    ("command", "line", "again"),
    [
        ("npm ci", "npm error Missing: a@1 from lock file", "npm install"),
        ("npm ci", "npm ERR! code EUSAGE", "npm install"),
        ("npm ci && npm install --no-save bun", "npm error code EUSAGE", "npm install && npm install --no-save bun"),
        ("npm ci", "npm error code ETARGET", "npm install --no-package-lock"),
        ("npm install", "npm error code ERESOLVE", "npm install --legacy-peer-deps"),
        ("npm install", "npm error code EBADPLATFORM", "npm install --force"),
        (
            "pnpm install --frozen-lockfile",
            " ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with frozen-lockfile",
            "pnpm install --no-frozen-lockfile",
        ),
        (
            "yarn install --frozen-lockfile",
            "error Your lockfile needs to be updated, but yarn was run with `--frozen-lockfile`.",
            "yarn install",
        ),
        (f"{VENV}uv pip install -e . gunicorn", NOT_BUILT, f"{VENV}uv pip install -r pyproject.toml gunicorn"),
        ("uv sync --frozen --python 3.12", NOT_BUILT, "uv sync --frozen --no-install-project --python 3.12"),
        (
            "uv sync --frozen --python 3.12 --extra api && uv pip install uvicorn",
            OTHER_PYTHON,
            "uv venv --allow-existing --python 3.12 && uv export --quiet --frozen --no-emit-project -o "
            ".venv/requirements.txt --python 3.12 --extra api && uv pip install -r .venv/requirements.txt "
            "&& uv pip install uvicorn",
        ),
        (
            f"{VENV}uv pip install -e . gunicorn",
            "  ╰─▶ Because the current Python version (3.12.1) does not satisfy Python>=3.13 and a==1 depends on it",
            f"{VENV}uv pip install -r pyproject.toml gunicorn",
        ),
        (
            "yarn install --frozen-lockfile",
            'warning Missing version in workspace at "/workspace/packages/ui", ignoring.',
            "npm install",
        ),
        (
            f"{VENV}uv pip install --editable . gunicorn",
            "         ModuleNotFoundError: No module named 'numpy'",
            f"{VENV}uv pip install setuptools wheel numpy && uv pip install --no-build-isolation --editable . gunicorn",
        ),
        (
            f"{VENV}uv pip install --editable .",
            "ModuleNotFoundError: No module named 'sklearn.svm'",
            f"{VENV}uv pip install setuptools wheel scikit-learn && uv pip install --no-build-isolation --editable .",
        ),
        (
            f"{VENV}uv pip install --editable .",
            "ModuleNotFoundError: No module named 'pkg_resources'",
            f"{VENV}uv pip install setuptools wheel 'setuptools<81' && "
            "uv pip install --no-build-isolation --editable .",
        ),
        (
            "yarn install --frozen-lockfile",
            'error a@1.0.0: The engine "node" is incompatible with this module. Expected version ">=24". Got "20.1.0"',
            "yarn install --ignore-engines --frozen-lockfile",
        ),
    ],
)
def test_remedies(command: str, line: str, again: str) -> None:
    found = second_attempt(command, ["first line", line])
    assert found is not None
    assert (found.command, bool(found.reason)) == (again, True)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("npm ci", "npm error code E404"),
        ("npm ci", "npm error code ENOTFOUND"),
        ("make install", "npm error code EUSAGE"),
        (f"{VENV}uv pip install -r requirements.txt", NOT_BUILT),
        ("uv pip install -e .[api]", NOT_BUILT),
    ],
)
def test_other_failures_have_no_second_attempt(command: str, line: str) -> None:
    assert second_attempt(command, [line]) is None
