"""Starts that are found in what a project states for people: Procfile, Dockerfile, `[project.scripts]`, README."""

import pytest

from sandbox.projects.detection.detect import PlanUndetected
from tests.unit.projects.small_projects import VENV, PlanOf, only, package

PROJECT = '[build-system]\nrequires = []\n[project]\nname = "x"\ndependencies = ["aiohttp"]\n'


@pytest.mark.parametrize(
    ("files", "start", "port"),
    [
        ({"Procfile": "worker: python w.py\nweb: gunicorn shop:make() --bind 0.0.0.0:$PORT\n"}, "gunicorn ", 8000),
        ({"Procfile": "web: A=1 waitress-serve --port=9090 shop:app"}, "A=1 waitress-serve --port=9090 shop:app", 9090),
        ({"Procfile": "web: node lib/odd.js"}, "node lib/odd.js", 3000),
        ({"pyproject.toml": PROJECT + '[project.scripts]\ntool = "x:a"\nx-serve = "x:b"'}, "x-serve", 8000),
        ({"Dockerfile": 'FROM x\nEXPOSE 9000\nCMD ["python", "-m", "odd.place"]\n'}, "python -m odd.place", 9000),
        ({"Dockerfile": "CMD old\nENTRYPOINT hypercorn odd:app \\\n  --bind 0.0.0.0:8080"}, "hypercorn odd:app ", 8080),
        ({"Dockerfile": 'CMD ["sh", "-c", "node odd.js"]\nEXPOSE 80'}, "node odd.js", 3000),
        (
            {"README.md": "```\nuv run python -m shop.server\n```", "src/shop/server.py": ""},
            "python -m shop.server",
            8000,
        ),
        ({"README.md": "# x\n```bash\npip install -e .\nuvicorn odd.place:make --port 9001\n```\n"}, "uvicorn ", 9001),
        (
            {"readme.rst": "Run::\n\n    $ uv run flask --app odd run -p 5050  # then look\n"},
            "flask --app odd run",
            5050,
        ),
        ({"README.md": "Start it with `python odd.py`.", "odd.py": "x = 1"}, "python odd.py", 8000),
        ({"README.md": "```\nnode odd.js\nnode --test\nnpm install\n```", "odd.js": ""}, "node odd.js", 3000),
    ],
)
def test_a_stated_start(plan_of: PlanOf, files: dict[str, str], start: str, port: int) -> None:
    plan = only(plan_of(files))[1]
    assert plan.start is not None
    assert plan.start.startswith(start)
    assert plan.port == port


def test_what_a_stated_start_needs_is_installed(plan_of: PlanOf) -> None:
    files = {"Procfile": "web: gunicorn x:app", "requirements.txt": "falcon"}
    assert only(plan_of(files))[1].install == f"{VENV} && uv pip install -r requirements.txt gunicorn"
    # A program that is not known comes with the dependencies of the project.
    files = {"Procfile": "web: voila first.ipynb --port=$PORT", "requirements.txt": "voila"}
    assert only(plan_of(files))[1].install == f"{VENV} && uv pip install -r requirements.txt"
    files = {"Procfile": "web: sh -c 'exec ./run --port 9000'", "package.json": package()}
    assert (only(plan_of(files))[1].runtime, only(plan_of(files))[1].port) == ("node20", 9000)
    script = {"pyproject.toml": PROJECT + '[project.scripts]\nserve = "x:b"'}
    assert only(plan_of(script))[1].install == f"{VENV} && uv pip install -e ."


@pytest.mark.parametrize(
    "readme",
    [
        "```\npython missing.py\n```",
        "```\nuvicorn\nnpm run build\nflask init\n```",
        "python app.py starts it.",
        "`rm -rf /`",
    ],
)
def test_what_starts_no_server_is_not_taken_from_a_readme(plan_of: PlanOf, readme: str) -> None:
    with pytest.raises(PlanUndetected) as refused:
        plan_of({"README.md": readme, "package.json": package(scripts={"build": "tsc"})})
    assert refused.value.looked_at == (
        "package.json: no script starts a server (scripts: build)",
        "README.md: no command in it starts a server",
    )


def test_a_program_of_a_project_without_a_server_is_not_started(plan_of: PlanOf) -> None:
    with pytest.raises(PlanUndetected):
        plan_of({"pyproject.toml": PROJECT.replace("aiohttp", "rich") + '[project.scripts]\nserve = "x:b"'})
