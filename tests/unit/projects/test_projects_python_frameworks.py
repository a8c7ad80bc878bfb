"""Python frameworks beyond FastAPI, Flask and Django, modules with syntax errors, and dependencies of other tools."""

import pytest

from tests.unit.projects.small_projects import FASTAPI, VENV, PlanOf, only


@pytest.mark.parametrize(
    ("files", "framework", "start", "port", "installed"),
    [
        ({"app.py": "from sanic import Sanic\napp = Sanic('x')"}, "sanic", "sanic app:app --host", 8000, "sanic"),
        ({"app.py": "import chainlit as cl"}, "chainlit", "chainlit run app.py --host", 8000, "chainlit"),
        ({"app.py": "from shiny import App\napp = App(1, 2)"}, "shiny", "shiny run app.py --host", 8000, "shiny"),
        ({"x.py": "import panel as pn\npn.Row().servable()"}, "panel", "panel serve x.py --address", 5006, "panel"),
        ({"x.py": "from bokeh.io import curdoc\ncurdoc()"}, "bokeh", "bokeh serve x.py --address", 5006, "bokeh"),
        ({"x.py": "import solara"}, "solara", "solara run x.py --host", 8765, "solara"),
        ({"x.py": "import marimo\napp = marimo.App()"}, "marimo", "marimo run x.py --host", 2718, "marimo"),
        ({"mkdocs.yml": "site_name: x\ntheme:\n  name: material"}, "mkdocs", "mkdocs serve", 8000, "mkdocs-material"),
        ({"docs/conf.py": "project = 'x'", "docs/index.rst": ""}, "sphinx", "sphinx-autobuild docs docs/_", 8000,
         "sphinx sphinx-autobuild"),
        ({"pelicanconf.py": "X = 1"}, "pelican", "pelican --autoreload --listen", 8000, "'pelican[markdown]'"),
        ({"conf.py": "BLOG_TITLE = 'x'"}, "nikola", "nikola build && exec nikola auto", 8000,
         "aiohttp nikola watchdog"),
        ({"main.py": "import falcon\nfrom waitress import serve\nserve(falcon.App(), port=8080)"}, "waitress",
         "python main.py", 8080, "falcon waitress"),
        ({"code.py": "import web\nweb.application((), {}).run()"}, "web.py", "python code.py", 8080, "web.py"),
        ({"app.py": "from microdot import Microdot\nMicrodot().run()"}, "microdot", "python app.py", 5000, "microdot"),
        ({"first.ipynb": "{}"}, "jupyter", "jupyter lab --ip 0.0.0.0 --port 8888", 8888, "jupyterlab"),
        ({"wsgi.py": "def application(environ, start_response):\n    return []\n"}, "python",
         "gunicorn wsgi:application --bind", 8000, "gunicorn"),
        ({"main.py": "async def app(scope, receive, send):\n    pass\n"}, "python", "uvicorn main:app --host", 8000,
         "uvicorn"),
        ({"main.py": "from fasthtml.common import *\napp, rt = fast_app()\nserve()"}, "python-fasthtml",
         "python main.py", 5001, "python-fasthtml"),
        ({"x/__main__.py": "from aiohttp import web\nweb.run_app(1, port=9009)"}, "aiohttp", "python -m x", 9009,
         "aiohttp"),
        ({"main.py": "from quart import Quart\napp = Quart('x')\napp.run()\n"}, "quart", "python main.py", 5000,
         "quart 'uvicorn[standard]'"),
        ({"main.py": "import flask\ndef main(a):\n  flask.Flask('x').run(port=5055)\nmain(1)"}, "flask",
         "python main.py", 5055, "flask"),
    ],
)  # fmt: skip
def test_more_frameworks(
    plan_of: PlanOf, files: dict[str, str], framework: str, start: str, port: int, installed: str
) -> None:
    plan = only(plan_of(files))[1]
    assert plan.start is not None
    assert (plan.framework, plan.port) == (framework, port)
    assert plan.start.startswith(start)
    assert plan.install == f"{VENV} && uv pip install {installed}"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (FASTAPI + "def broken(:\n", "uvicorn main:app "),
        ("import fastapi as fa, os\nshop: fa.FastAPI = fa.FastAPI()\n  x = 1\n", "uvicorn main:shop "),
        ("from flask import Flask, request\napp = Flask(__name__)\nif x\n  pass", "flask --app main:app "),
        ("import streamlit as st\nst.title('x'\n", "streamlit run main.py "),
        ("import gradio\nprint 'two'\n", "python main.py"),
    ],
)
def test_a_syntax_error_does_not_hide_an_app(plan_of: PlanOf, text: str, start: str) -> None:
    plan = only(plan_of({"main.py": text}))[1]
    assert plan.start is not None
    assert plan.start.startswith(start)


@pytest.mark.parametrize(
    ("files", "install"),
    [
        (
            {"pyproject.toml": '[project]\nname="x"', "pdm.lock": ""},
            f"{VENV} && uvx pdm export --without-hashes -o .venv/requirements.txt && uv pip install"
            " -r .venv/requirements.txt fastapi 'uvicorn[standard]'",
        ),
        ({"pylock.toml": ""}, f"{VENV} && uv pip install -r pylock.toml fastapi 'uvicorn[standard]'"),
        (
            {"pyproject.toml": '[project]\nname="x"\n[project.optional-dependencies]\napi=["fastapi","uvicorn"]'},
            f"{VENV} && uv pip install -r pyproject.toml --extra api",
        ),
        (
            {
                "pyproject.toml": '[build-system]\nrequires=[]\n[project]\nname="x"\n[project.optional-dependencies]\n'
                'api=["fastapi"]\n[dependency-groups]\ndev=["uvicorn"]'
            },
            f"{VENV} && uv pip install -e '.[api]' --group dev",
        ),
        (
            {"pyproject.toml": '[project]\nname="x"\n[dependency-groups]\nweb=["fastapi","uvicorn"]', "uv.lock": ""},
            "uv sync --frozen --python 3.12 --group web",
        ),
    ],
)
def test_dependencies_of_other_tools_and_in_groups(plan_of: PlanOf, files: dict[str, str], install: str) -> None:
    assert only(plan_of({"main.py": FASTAPI, **files}))[1].install == install


def test_a_uv_lock_that_lacks_a_dependency_is_brought_up_to_date(plan_of: PlanOf) -> None:
    """`uv sync --frozen` would install what is locked, and the app would miss the rest."""
    project = '[project]\nname = "My_App"\ndependencies = ["fastapi[standard]", "humanize>4"]\n'
    own = '\n[[package]]\nname = "my-app"\nversion = "1"\nsource = {{ virtual = "." }}\ndependencies = [\n{}]\n'
    listed = '    { name = "fastapi", extra = ["standard"] },\n'
    files = {"main.py": FASTAPI, "pyproject.toml": project, "uv.lock": "version = 1\n" + own.format(listed)}
    install = "uv sync --python 3.12"
    said = "echo 'uv.lock lacks humanize: it is brought up to date'"
    assert only(plan_of(files))[1].install == f"{said} && {install}"
    files["uv.lock"] = "version = 1\n" + own.format(listed + '    { name = "humanize" },\n')
    assert only(plan_of(files))[1].install == "uv sync --frozen --python 3.12"


def test_a_member_of_a_uv_workspace_has_an_environment_of_its_own(plan_of: PlanOf) -> None:
    files = {
        "uv.lock": "",
        "pyproject.toml": '[tool.uv.workspace]\nmembers = ["apps/*"]',
        "apps/api/pyproject.toml": '[project]\nname="api"\ndependencies=["fastapi[standard]"]',
        "apps/api/main.py": FASTAPI,
    }
    plan = plan_of(files).roles["backend"]
    assert (plan.root, plan.install) == ("apps/api", "UV_PROJECT_ENVIRONMENT=$PWD/.venv uv sync --frozen --python 3.12")
