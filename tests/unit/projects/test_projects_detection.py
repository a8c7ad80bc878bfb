"""Detection of static pages and of projects with several roles, and projects that are not recognised."""

import pytest

from sandbox.projects.detection.detect import PlanUndetected
from tests.unit.projects.small_projects import EXPRESS, FASTAPI, FLASK, VENV, VITE, PlanOf, only, package


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


def test_other_runtimes_are_detected_by_their_manifest(plan_of: PlanOf) -> None:
    role, plan = only(plan_of({"go.mod": "module x", "main.go": ""}))
    assert (role, plan.runtime, plan.start, plan.install) == ("backend", "go122", "go run .", "go mod download")


def test_the_error_for_an_unrecognised_project_shows_a_manifest(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected) as refused:
        plan_of({"README.md": "", "package.json": "{", "pyproject.toml": "["})
    assert refused.value.code == "plan_undetected"
    assert "package.json is not valid JSON" in refused.value.message
    assert "index.html" in refused.value.message
    assert "[backend]" in refused.value.hint


def test_several_apps_are_an_error(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected, match="one, two"):
        plan_of({"one/main.py": FASTAPI, "two/main.py": FASTAPI})


def test_an_app_without_its_runtime_is_not_planned(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected):
        plan_of({"main.py": FASTAPI}, runtimes=())


def test_a_server_without_a_manifest_is_part_of_the_project_above_it(plan_of: PlanOf) -> None:
    files = {
        "package.json": package(
            scripts={"dev": 'concurrently "npm run server" "npm run client"', "server": "node server/index.js"},
            dependencies={"express": "^4"},
        ),
        "server/index.js": "require('express')().listen(5000)",
        "client/package.json": VITE,
        "client/index.html": "",
    }
    roles = plan_of(files).roles
    backend = roles["backend"]
    assert (backend.root, backend.start, backend.install, backend.port) == (".", "npm run server", "npm install", 5000)
    assert roles["frontend"].root == "client"


def test_a_server_beside_a_page_at_the_top_has_the_packages_of_the_top(plan_of: PlanOf) -> None:
    files = {
        "package.json": package(
            scripts={"dev": "vite"}, dependencies={"express": "^4"}, devDependencies={"vite": "^6"}
        ),
        "index.html": "",
        "api/index.js": "require('express')().listen(5000)",
    }
    roles = plan_of(files).roles
    backend = roles["backend"]
    assert (backend.root, backend.start, backend.install, backend.port) == (
        ".",
        "node api/index.js",
        "npm install",
        5000,
    )
    assert (roles["frontend"].root, roles["frontend"].framework) == (".", "vite")


def test_a_script_in_a_folder_is_started_with_the_dependencies_of_the_project(plan_of: PlanOf) -> None:
    plan = only(
        plan_of({"src/main.py": "from nicegui import ui\nui.run()\n", "requirements.txt": "nicegui\npandas\n"})
    )[1]
    assert (plan.root, plan.start) == (".", "python src/main.py")
    assert plan.install == f"{VENV} && uv pip install -r requirements.txt"


def test_a_static_page_does_not_take_the_port_of_the_back_end(plan_of: PlanOf) -> None:
    files = {"frontend/index.html": "", "backend/main.py": FASTAPI, "backend/requirements.txt": "fastapi"}
    roles = plan_of(files).roles
    assert (roles["frontend"].port, roles["backend"].port) == (8080, 8000)
    assert roles["frontend"].start == "python3 -m http.server 8080 --bind 0.0.0.0"
