"""Detection of small Python projects."""

import warnings

import pytest

from sandbox.projects.detection.detect import PlanUndetected
from tests.unit.projects.small_projects import FASTAPI, FLASK, VENV, PlanOf, only


@pytest.mark.parametrize(
    ("files", "start"),
    [
        ({"main.py": FASTAPI}, "uvicorn main:app --host 0.0.0.0 --port 8000 --reload"),
        ({"app.py": "import fastapi as fa\napi: fa.FastAPI = fa.FastAPI(title='x')\n"}, "uvicorn app:api "),
        ({"app/main.py": "from app.db import x\n" + FASTAPI, "app/db.py": "x = 1"}, "uvicorn app.main:app "),
        ({"app/main.py": "from .db import x\n" + FASTAPI, "app/db.py": "x = 1"}, "uvicorn app.main:app "),
        ({"app/main.py": "from db import x\n" + FASTAPI, "app/db.py": "x = 1"}, "uvicorn main:app "),
        ({"src/shop/main.py": "from shop import x\n" + FASTAPI, "src/shop/__init__.py": ""}, "uvicorn shop.main:app "),
        ({"src/main.py": "from src.x import y\n" + FASTAPI, "src/x.py": ""}, "uvicorn src.main:app "),
        (
            {"main.py": "from fastapi import FastAPI\ndef create_app(debug=False):\n    a = FastAPI()\n    return a\n"},
            "uvicorn --factory main:create_app ",
        ),
        (
            {
                "asgi.py": "from shop import create_app\napplication = create_app()\n",
                "shop/__init__.py": "import fastapi\ndef create_app():\n    return fastapi.FastAPI()\n",
            },
            "uvicorn asgi:application ",
        ),
        (
            {"main.py": "try:\n    from fastapi import FastAPI\nfinally:\n    pass\nif True:\n    a = FastAPI()"},
            "uvicorn main:a ",
        ),
        (
            {"main.py": FASTAPI + "PORT = 8080\nif __name__ == '__main__':\n    uvicorn.run(app, port=PORT)\n"},
            "uvicorn main:app --host 0.0.0.0 --port 8080 --reload",
        ),
        (
            {
                "main.py": FASTAPI
                + "import uvicorn, os\ndef run(): uvicorn.run(app, port=int(os.getenv('PORT', '9000')))\n"
            },
            "uvicorn main:app --host 0.0.0.0 --port 9000 --reload",
        ),
        ({"main.py": "from starlette.applications import Starlette\napp = Starlette()"}, "uvicorn main:app "),
        ({"app.py": FLASK}, "flask --app app:app run --host 0.0.0.0 --port 5000 --debug"),
        (
            {
                "wsgi.py": "from flaskr import create_app\napp = create_app()",
                "flaskr/__init__.py": "from flask import Flask\ndef create_app(c=None):\n    return Flask('x')",
            },
            "flask --app wsgi:app run ",
        ),
        (
            {"flaskr/__init__.py": "from flask import Flask\ndef create_app(c=None):\n    return Flask('x')"},
            "flask --app flaskr:create_app run ",
        ),
        ({"tests/test_x.py": FLASK, "zz.py": FLASK}, "flask --app zz:app "),
    ],
)
def test_python_web_apps(plan_of: PlanOf, files: dict[str, str], start: str) -> None:
    role, plan = only(plan_of({**files, "requirements.txt": "fastapi[standard]\nflask\nstarlette\nuvicorn[standard]"}))
    assert (role, plan.runtime, plan.root) == ("backend", "python312", ".")
    assert plan.start is not None
    assert plan.start.startswith(start)
    assert f"--port {plan.port} " in plan.start
    assert plan.install == f"{VENV} && uv pip install -r requirements.txt"


def test_a_source_folder_is_added_to_pythonpath(plan_of: PlanOf) -> None:
    _, plan = only(plan_of({"src/main.py": "from db import x\n" + FASTAPI, "src/db.py": "x = 1"}))
    assert plan.env == {"PYTHONPATH": "src"}
    assert plan.start is not None
    assert plan.start.startswith("uvicorn main:app ")


def test_code_that_only_resembles_an_app_is_not_detected(plan_of: PlanOf) -> None:
    text = '"""app = FastAPI()"""\n# from fastapi import FastAPI\ndef f(required):\n    return FastAPI()\n'
    with pytest.raises(PlanUndetected):
        plan_of({"main.py": text})


@pytest.mark.parametrize(
    ("files", "install"),
    [
        ({}, f"{VENV} && uv pip install fastapi 'uvicorn[standard]'"),
        ({"requirements.txt": "fastapi==0.115.0"}, f"{VENV} && uv pip install -r requirements.txt 'uvicorn[standard]'"),
        ({"requirements.txt": "FastAPI\nuvicorn"}, f"{VENV} && uv pip install -r requirements.txt 'uvicorn[standard]'"),
        ({"requirements.txt": "# none"}, f"{VENV} && uv pip install -r requirements.txt fastapi 'uvicorn[standard]'"),
        ({"requirements.txt": "fastapi[all]>=0.1"}, f"{VENV} && uv pip install -r requirements.txt"),
        (
            {
                "requirements.txt": "-r requirements/base.txt",
                "requirements/base.txt": "fastapi\nuvicorn[standard]~=0.3",
            },
            f"{VENV} && uv pip install -r requirements.txt",
        ),
        ({"requirements/base.txt": "fastapi[all]"}, f"{VENV} && uv pip install -r requirements/base.txt"),
        (
            {"pyproject.toml": '[project]\nname="x"\ndependencies=["fastapi[standard]"]', "uv.lock": "version = 1"},
            "uv sync --frozen --python 3.12",
        ),
        (
            {"pyproject.toml": '[project]\nname="x"\ndependencies=["fastapi"]', "uv.lock": "version = 1"},
            "uv sync --frozen --python 3.12 && uv pip install 'uvicorn[standard]'",
        ),
        (
            {"pyproject.toml": '[project]\nname="x"\ndependencies=["fastapi[all]"]'},
            f"{VENV} && uv pip install -r pyproject.toml",
        ),
        (
            {"pyproject.toml": '[build-system]\nrequires=[]\n[project]\nname="x"\ndependencies=["fastapi[all]"]'},
            f"{VENV} && uv pip install -e .",
        ),
        (
            {
                "pyproject.toml": '[tool.poetry.dependencies]\nfastapi = {version="*", extras=["all"]}',
                "poetry.lock": "",
            },
            f"{VENV} && uvx --with poetry-plugin-export poetry export -o .venv/requirements.txt"
            " && uv pip install -r .venv/requirements.txt",
        ),
        (
            {"pyproject.toml": '[build-system]\nrequires=[]\n[tool.poetry.dependencies]\nfastapi = "^0.1"'},
            f"{VENV} && uv pip install -r pyproject.toml 'uvicorn[standard]'",
        ),
        (
            {"Pipfile": '[packages]\nfastapi = {extras = ["all"], version = "*"}', "Pipfile.lock": "{}"},
            f"{VENV} && uvx pipenv requirements > .venv/requirements.txt && uv pip install -r .venv/requirements.txt",
        ),
        ({"pyproject.toml": "[tool.ruff]\n"}, f"{VENV} && uv pip install fastapi 'uvicorn[standard]'"),
        ({"setup.py": ""}, f"{VENV} && uv pip install --editable . fastapi 'uvicorn[standard]'"),
    ],
)
def test_python_dependencies(plan_of: PlanOf, files: dict[str, str], install: str) -> None:
    assert only(plan_of({"main.py": FASTAPI, **files}))[1].install == install


def test_without_a_manifest_only_known_third_party_imports_are_installed(plan_of: PlanOf) -> None:
    text = FASTAPI + "import yaml, redis, os, strange_package\nfrom PIL import Image\n"
    install = only(plan_of({"main.py": text, "redis.py": ""}))[1].install
    assert install == f"{VENV} && uv pip install fastapi pillow pyyaml 'uvicorn[standard]'"


def test_django(plan_of: PlanOf) -> None:
    manage = "import os\nfrom django.core.management import execute_from_command_line\n"
    role, plan = only(plan_of({"manage.py": manage, "site/settings.py": ""}))
    assert (role, plan.framework, plan.port) == ("backend", "django", 8000)
    assert plan.install == f"{VENV} && uv pip install django"
    assert plan.start == "python manage.py migrate --noinput && exec python manage.py runserver 0.0.0.0:8000"
    _, plan = only(plan_of({"my site/manage.py": manage, "requirements.txt": "Django>=5"}))
    assert plan.start is not None
    assert plan.start.startswith("cd 'my site' && python manage.py migrate")
    assert (plan.root, plan.install) == (".", f"{VENV} && uv pip install -r requirements.txt")


def test_streamlit_alone_and_as_a_frontend(plan_of: PlanOf) -> None:
    page = "import streamlit as st\nst.title('x')\n"
    role, plan = only(plan_of({"app.py": page, "pages/1.py": page, "helper.py": "import streamlit"}))
    assert (role, plan.framework, plan.port, plan.health) == ("backend", "streamlit", 8501, "/_stcore/health")
    assert plan.start is not None
    assert plan.start.startswith("streamlit run app.py --server.port 8501 ")
    both = plan_of({"main.py": FASTAPI, "ui.py": page})
    assert {role: plan.framework for role, plan in both.roles.items()} == {
        "backend": "fastapi",
        "frontend": "streamlit",
    }
    assert both.preview_port == 8501


@pytest.mark.parametrize(
    ("text", "framework", "port", "install"),
    [
        ("import gradio as gr\ngr.Blocks().launch()", "gradio", 7860, f"{VENV} && uv pip install gradio"),
        ("from http.server import HTTPServer\nHTTPServer(('', 8123), X).serve_forever()", "python", 8123, None),
        (
            "from aiohttp import web\nweb.run_app(web.Application())",
            "aiohttp",
            8080,
            f"{VENV} && uv pip install aiohttp",
        ),
        ("import bottle\nbottle.run(port=9090)", "bottle", 9090, f"{VENV} && uv pip install bottle"),
    ],
)
def test_scripts_that_start_a_server(
    plan_of: PlanOf, text: str, framework: str, port: int, install: str | None
) -> None:
    role, plan = only(plan_of({"main.py": text}))
    assert (role, plan.framework, plan.port, plan.start) == ("backend", framework, port, "python main.py")
    assert plan.install == install


def test_code_with_warnings_or_syntax_errors(plan_of: PlanOf) -> None:
    with warnings.catch_warnings(record=True) as caught:
        only(plan_of({"main.py": FASTAPI + "x = '\\d'\ny = 1 is 1\n", "z.py": "print 'two'", "n.py": "\0"}))
    assert not caught
    with pytest.raises(PlanUndetected) as refused:
        plan_of({"main.py": "(" * 50_000})
    assert "main.py is not valid Python 3" in refused.value.message
