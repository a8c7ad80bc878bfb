"""What small projects are taken for."""

import json
import warnings
from collections.abc import Callable

import pytest

from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.projects.detection import PlanUndetected

PlanOf = Callable[..., LaunchPlan]

VENV = "uv venv --allow-existing --python 3.12"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def package(**content: object) -> str:
    return json.dumps({"name": "x", **content})


VITE = package(scripts={"dev": "vite"}, devDependencies={"vite": "^6"})
EXPRESS = package(scripts={"start": "node server.js"}, dependencies={"express": "^4"})


def only(plan: LaunchPlan) -> tuple[str, RolePlan]:
    assert len(plan.roles) == 1, plan
    return next(iter(plan.roles.items()))


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
            {"main.py": FASTAPI + "import uvicorn, os\nuvicorn.run(app, port=int(os.environ.get('PORT', '9000')))\n"},
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


def test_modules_that_import_from_a_source_folder_are_given_it(plan_of: PlanOf) -> None:
    _, plan = only(plan_of({"src/main.py": "from db import x\n" + FASTAPI, "src/db.py": "x = 1"}))
    assert plan.env == {"PYTHONPATH": "src"}
    assert plan.start is not None
    assert plan.start.startswith("uvicorn main:app ")


def test_an_app_is_not_what_only_looks_like_one(plan_of: PlanOf) -> None:
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
        ({"setup.py": ""}, f"{VENV} && uv pip install -e . fastapi 'uvicorn[standard]'"),
    ],
)
def test_python_dependencies(plan_of: PlanOf, files: dict[str, str], install: str) -> None:
    assert only(plan_of({"main.py": FASTAPI, **files}))[1].install == install


def test_without_a_manifest_known_imports_are_installed_and_the_projects_own_are_not(plan_of: PlanOf) -> None:
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


def test_streamlit_alone_and_before_a_backend(plan_of: PlanOf) -> None:
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
def test_scripts_that_serve(plan_of: PlanOf, text: str, framework: str, port: int, install: str | None) -> None:
    role, plan = only(plan_of({"main.py": text}))
    assert (role, plan.framework, plan.port, plan.start) == ("backend", framework, port, "python main.py")
    assert plan.install == install


def test_code_that_warns_or_cannot_be_read(plan_of: PlanOf) -> None:
    with warnings.catch_warnings(record=True) as caught:
        only(plan_of({"main.py": FASTAPI + "x = '\\d'\ny = 1 is 1\n", "z.py": "print 'two'", "n.py": "\0"}))
    assert not caught
    with pytest.raises(PlanUndetected) as refused:
        plan_of({"main.py": "(" * 50_000})
    assert "main.py is not valid Python 3" in refused.value.message


@pytest.mark.parametrize(
    ("package_json", "framework", "start", "port"),
    [
        (VITE, "vite", "npm run dev -- --host 0.0.0.0 --port 5173 --strictPort", 5173),
        (
            package(scripts={"start": "vite --port 3000"}),
            "vite",
            "npm run start -- --host 0.0.0.0 --port 5173 --strictPort",
            5173,
        ),
        (
            package(scripts={"dev": "npm run gen && cross-env A=b vite dev --open"}),
            "vite",
            "npm run dev -- --host 0.0.0.0 --port 5173 --strictPort",
            5173,
        ),
        (
            package(devDependencies={"vite": "6"}, scripts={"build": "vite build"}),
            "vite",
            "vite --host 0.0.0.0 --port 5173 --strictPort",
            5173,
        ),
        (
            package(devDependencies={"vite": "6"}, scripts={"dev": 'concurrently "vite" "node server.js"'}),
            "vite",
            "npm run dev",
            5173,
        ),
        (
            package(scripts={"dev": "next dev --turbopack"}),
            "next",
            "npm run dev -- --hostname 0.0.0.0 --port 3000",
            3000,
        ),
        (package(scripts={"start": "react-scripts start"}), "create-react-app", "npm run start", 3000),
        (package(scripts={"dev": "astro dev"}), "astro", "npm run dev -- --host 0.0.0.0 --port 4321", 4321),
        (package(scripts={"start": "ng serve"}), "angular", "npm run start -- --host 0.0.0.0 --port 4200", 4200),
        (
            package(scripts={"serve": "vue-cli-service serve"}),
            "vue-cli",
            "npm run serve -- --host 0.0.0.0 --port 8080",
            8080,
        ),
    ],
)
def test_node_user_interfaces(plan_of: PlanOf, package_json: str, framework: str, start: str, port: int) -> None:
    role, plan = only(plan_of({"package.json": package_json}))
    assert (role, plan.runtime, plan.framework) == ("frontend", "node20", framework)
    assert (plan.start, plan.port, plan.install) == (start, port, "npm install")


@pytest.mark.parametrize(
    ("files", "framework", "start", "port"),
    [
        (
            {
                "package.json": package(scripts={"start": "node ./bin/www"}, dependencies={"express": "4"}),
                "bin/www": "var port = normalizePort(process.env.PORT || '3000');",
            },
            "express",
            "npm start",
            3000,
        ),
        ({"package.json": EXPRESS, "server.js": "app.listen(4000)"}, "express", "npm start", 4000),
        ({"package.json": EXPRESS, "server.js": "const PORT = process.env.PORT ?? 5001"}, "express", "npm start", 5001),
        (
            {
                "package.json": package(dependencies={"express": "4"}, main="./src/go.js"),
                "src/go.js": "const port = 8081",
            },
            "express",
            "node src/go.js",
            8081,
        ),
        (
            {"package.json": package(scripts={"dev": "nodemon server.js", "start": "node server.js"}), "server.js": ""},
            "node",
            "npm start",
            3000,
        ),
        (
            {
                "package.json": package(scripts={"dev": "tsx src/index.ts"}, devDependencies={"tsx": "4"}),
                "src/index.ts": "app.listen({ port: 4321 })",
            },
            "node",
            "npm run dev",
            4321,
        ),
        (
            {
                "package.json": package(
                    scripts={"start": "node dist/main.js", "build": "tsc"}, dependencies={"koa": "2"}
                )
            },
            "koa",
            "npm run build && npm start",
            3000,
        ),
        (
            {
                "package.json": package(
                    scripts={"start:dev": "nest start --watch", "start": "nest start"},
                    dependencies={"@nestjs/core": "10"},
                )
            },
            "nest",
            "npm run start:dev",
            3000,
        ),
        (
            {"server.js": "require('http').createServer().listen(process.env.PORT || 8088)"},
            "node",
            "node server.js",
            8088,
        ),
        (
            {
                "package.json": package(
                    devDependencies={"vite": "6", "tsx": "4"},
                    dependencies={"express": "4"},
                    scripts={"dev": "tsx server/index.ts"},
                ),
                "server/index.ts": "",
            },
            "express",
            "npm run dev",
            3000,
        ),
    ],
)
def test_node_servers(plan_of: PlanOf, files: dict[str, str], framework: str, start: str, port: int) -> None:
    role, plan = only(plan_of(files))
    assert (role, plan.runtime, plan.framework, plan.start, plan.port) == ("backend", "node20", framework, start, port)


@pytest.mark.parametrize(
    ("lock", "more", "install"),
    [
        ("package-lock.json", {}, "npm ci"),
        ("npm-shrinkwrap.json", {}, "npm ci"),
        ("pnpm-lock.yaml", {}, "pnpm install --frozen-lockfile"),
        ("yarn.lock", {}, "yarn install --frozen-lockfile"),
        (
            "yarn.lock",
            {"packageManager": "yarn@4.1.0"},
            "YARN_NODE_LINKER=node-modules npx --yes @yarnpkg/cli-dist install",
        ),
        ("yarn.lock", {"packageManager": "yarn@1.22.22+sha1.abc"}, "yarn install --frozen-lockfile"),
        ("package-lock.json", {"packageManager": "pnpm@10"}, "pnpm install"),
        ("none", {}, "npm install"),
    ],
)
def test_node_package_managers(plan_of: PlanOf, lock: str, more: dict[str, str], install: str) -> None:
    files = {"package.json": package(scripts={"dev": "vite"}, **more), lock: ""}
    assert only(plan_of(files))[1].install == install


def test_a_server_without_dependencies_installs_nothing(plan_of: PlanOf) -> None:
    plan = only(plan_of({"package.json": package(scripts={"start": "node index.js"}), "index.js": ""}))[1]
    assert (plan.install, plan.start) == (None, "npm start")


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"index.html": "", "index.js": "console.log(1)", "style.css": ""}, "."),
        ({"public/index.html": "", "README.md": ""}, "public"),
        ({"package.json": package(devDependencies={"eslint": "9"}), "index.html": ""}, "."),
    ],
)
def test_static_pages(plan_of: PlanOf, files: dict[str, str], root: str) -> None:
    role, plan = only(plan_of(files))
    assert (role, plan.runtime, plan.root, plan.install) == ("frontend", "python312", root, None)
    assert plan.start == "python3 -m http.server 8000 --bind 0.0.0.0"


@pytest.mark.parametrize(
    ("files", "backend", "frontend"),
    [
        ({"backend/main.py": FASTAPI, "frontend/package.json": VITE}, "backend", "frontend"),
        ({"server/package.json": EXPRESS, "client/package.json": VITE}, "server", "client"),
        ({"api/main.py": FASTAPI, "web/package.json": VITE}, "api", "web"),
        ({"apps/api/main.py": FASTAPI, "apps/web/package.json": VITE}, "apps/api", "apps/web"),
        ({"main.py": FASTAPI, "requirements.txt": "", "ui/package.json": VITE}, ".", "ui"),
        ({"package.json": VITE, "server/package.json": EXPRESS}, "server", "."),
        ({"package.json": EXPRESS, "client/package.json": VITE}, ".", "client"),
        ({"backend/main.py": FASTAPI, "frontend/index.html": ""}, "backend", "frontend"),
        ({"backend/main.py": FASTAPI, "index.html": ""}, "backend", "."),
        (
            {
                "requirements.txt": "",
                "backend/main.py": "from backend import x\n" + FASTAPI,
                "frontend/package.json": VITE,
            },
            ".",
            "frontend",
        ),
        (
            {
                "package.json": package(scripts={"dev": "concurrently 'npm:dev -w client' 'npm:dev -w server'"}),
                "server/package.json": EXPRESS,
                "client/package.json": VITE,
            },
            "server",
            "client",
        ),
        ({"web-shop/package.json": VITE, "shop/manage.py": "import django"}, "shop", "web-shop"),
        ({"main.py": FASTAPI, "package.json": VITE}, ".", "."),
    ],
)
def test_front_end_and_back_end(plan_of: PlanOf, files: dict[str, str], backend: str, frontend: str) -> None:
    plan = plan_of(files)
    assert {role: part.root for role, part in plan.roles.items()} == {"backend": backend, "frontend": frontend}
    assert plan.preview_role == "frontend"


@pytest.mark.parametrize(
    ("files", "root"),
    [
        (
            {
                "backend/main.py": FASTAPI + "from x import StaticFiles\napp.mount('/', StaticFiles('../frontend'))",
                "frontend/index.html": "",
            },
            "backend",
        ),
        ({"main.py": FASTAPI, "api/main.py": "from fastapi import APIRouter\nrouter = APIRouter()"}, "."),
        ({"main.py": FASTAPI, "package.json": package(scripts={"dev": "tailwindcss --watch"})}, "."),
        ({"project/requirements.txt": "", "project/main.py": FASTAPI, "README.md": ""}, "project"),
        ({"app.py": FLASK, "server/util.py": "x = 1", "templates/index.html": ""}, "."),
    ],
)
def test_one_back_end_only(plan_of: PlanOf, files: dict[str, str], root: str) -> None:
    role, plan = only(plan_of(files))
    assert (role, plan.root) == ("backend", root)


def test_runtimes_of_their_own_are_found_by_their_manifest(plan_of: PlanOf) -> None:
    role, plan = only(plan_of({"go.mod": "module x", "main.go": ""}))
    assert (role, plan.runtime, plan.start, plan.install) == ("backend", "go122", "go run .", "go mod download")


def test_what_is_not_recognised_is_said_with_a_way_out(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected) as refused:
        plan_of({"README.md": "", "package.json": "{", "pyproject.toml": "["})
    assert refused.value.code == "plan_undetected"
    assert "package.json is not valid JSON" in refused.value.message
    assert "index.html" in refused.value.message
    assert "[backend]" in refused.value.hint


def test_several_apps_are_not_guessed_between(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected, match="one, two"):
        plan_of({"one/main.py": FASTAPI, "two/main.py": FASTAPI})


def test_a_runtime_that_is_not_there_is_not_planned(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected):
        plan_of({"main.py": FASTAPI}, runtimes=())
