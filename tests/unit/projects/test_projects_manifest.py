"""`sandbox.toml`: its values are used, missing ones are detected, and errors name their position."""

from collections.abc import Callable

import pytest

from sandbox.domain.plan import LaunchPlan
from sandbox.projects.detection.detect import EXAMPLE
from sandbox.projects.manifest import PlanInvalid, with_request
from tests.unit.projects.conftest import RUNTIMES, DictSource

PlanOf = Callable[..., LaunchPlan]

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"


def test_a_complete_manifest(plan_of: PlanOf) -> None:
    text = """
[worker]
runtime = "python312"
root = "jobs"
install = ""
start = "python jobs.py"
[backend]
runtime = "python312"
root = "api/"
install = "true"
start = "python serve.py"
port = 9000
health = "/health"
env = { A = "b" }
"""
    plan = plan_of({"sandbox.toml": text, "jobs/jobs.py": "", "api/serve.py": ""})
    assert list(plan.roles) == ["worker", "backend"]
    worker, backend = plan.roles.values()
    assert (worker.root, worker.install, worker.start, worker.port) == ("jobs", None, "python jobs.py", None)
    assert (backend.root, backend.port, backend.health, backend.env) == ("api", 9000, "/health", {"A": "b"})
    assert plan.preview_role == "backend"


def test_the_example_in_hints_works(plan_of: PlanOf) -> None:
    assert plan_of({"sandbox.toml": EXAMPLE, "main.py": FASTAPI}).roles["backend"].port == 8000


def test_keys_that_are_left_out_are_detected(plan_of: PlanOf) -> None:
    files = {"api/main.py": FASTAPI, "api/requirements.txt": "fastapi[all]"}
    plan = plan_of({**files, "sandbox.toml": '[backend]\nroot = "api"\nhealth = "/health"\nenv = { A = "b" }\n'})
    backend = plan.roles["backend"]
    assert backend.start == "uvicorn main:app --host 0.0.0.0 --port 8000 --reload"
    assert (backend.port, backend.health, backend.framework, backend.env) == (8000, "/health", "fastapi", {"A": "b"})
    started = plan_of({**files, "sandbox.toml": '[worker]\nroot = "api"\nstart = "celery worker"\n'}).roles["worker"]
    assert started.port is None
    assert started.install is not None
    assert started.install.endswith("uv pip install -r requirements.txt")


def test_network_states_what_the_project_reaches(plan_of: PlanOf) -> None:
    role = '\n[web]\nruntime = "python312"\nstart = "python3 app.py"\nport = 8000\n'
    assert plan_of({"sandbox.toml": 'network = { egress = "none" }' + role}).network.egress == "none"
    listed = plan_of({"sandbox.toml": '[network]\negress = ["api.example.com", "203.0.113.0/24"]' + role}).network
    assert listed.egress == ("api.example.com", "203.0.113.0/24")
    assert plan_of({"sandbox.toml": role}).network.egress == "all"


@pytest.mark.parametrize("manifest", ['preview = { host = "public" }', '[preview]\nhost = "public"'])
def test_a_project_can_ask_for_the_public_host_names(plan_of: PlanOf, manifest: str) -> None:
    role = '\n[backend]\nruntime = "python312"\nstart = "x"\n'
    assert plan_of({"sandbox.toml": manifest + role}).preview.host == "public"
    assert plan_of({"sandbox.toml": role}).preview.host == "localhost"
    detected = plan_of({"main.py": FASTAPI, "requirements.txt": "fastapi", "sandbox.toml": manifest})
    assert detected.preview.host == "public"
    assert list(detected.roles) == ["backend"]


def test_a_role_without_a_start_command(plan_of: PlanOf) -> None:
    plan = plan_of({"sandbox.toml": '[tools]\nruntime = "node20"\nstart = ""\n'})
    assert plan.roles["tools"].start is None
    assert plan.preview_port is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["empty"]),
        ("[backend\n", ["not TOML", "line 1"]),
        ('preview = { host = "mine" }', ["[preview] host", "'localhost' or 'public'"]),
        ('network = { egress = ["*.example.com"] }', ["[network] egress", "wildcards are not supported"]),
        ('network = { egress = 7 }', ["[network] egress"]),
        ('preview = { log = "yes" }', ["[preview] log", "boolean"]),
        ('x = 1\n[backend]\nstart = "a"', ["[x]", "outside of any table", "line 1"]),
        ('[Back_End]\nstart = "a"', ["[Back_End]", "not a valid role", "line 1"]),
        ('[backend]\nstart = "a"\ncommand = "b"', ["[backend] command", "unknown", "runtime, root", "line 3"]),
        ('[backend]\nruntime = "cobol"\nstart = "a"', ["[backend] runtime", "'cobol'", "node20, python312", "line 2"]),
        ('[backend]\nport = "8000"', ["[backend] port", "integer", "line 2"]),
        ('[backend]\nport = 70000', ["[backend] port", "65535", "line 2"]),
        ('[backend]\nroot = "../x"', ["[backend] root", "inside the project", "line 2"]),
        ('[backend]\nroot = "/etc"', ["[backend] root", "line 2"]),
        ('[backend]\nroot = "nowhere"', ["[backend] root", "'nowhere'", "line 2"]),
        ('[backend]\nhealth = "health"', ["[backend] health", "starts with '/'", "line 2"]),
        ('[a]\nstart = "x"\nruntime = "node20"\n[b]\nenv = { "1x" = "y" }', ["[b] env", "'1x'", "line 5"]),
        ('[backend]\nenv = { A = 1 }', ["[backend] env", "(A)", "string"]),
        ('[backend]\nstart = ["a"]', ["[backend] start", "string", "line 2"]),
        ('[backend]\nport = 80\nstart = ""', ["[backend] port", "without a start command", "line 2"]),
        ('[backend]\nruntime = "python312"', ["[backend]", "does not set start", "line 1"]),
        ('[backend]\nstart = "a"', ["[backend]", "does not set runtime", "line 1"]),
        ("\n".join(f"[r{i}]\nstart='a'\nruntime='node20'" for i in range(9)), ["9 tables", "at most 8"]),
        ("#" * 70_000, ["larger than 64 KiB"]),
        ("x = " + "[" * 50_000, ["not TOML"]),
    ],
)  # fmt: skip
def test_errors_name_table_key_and_line(plan_of: PlanOf, text: str, said: list[str]) -> None:
    with pytest.raises(PlanInvalid) as refused:
        plan_of({"sandbox.toml": text, "README.md": ""})
    assert refused.value.code == "plan_invalid"
    assert refused.value.hint
    for part in said:
        assert part in refused.value.message


def test_a_runtime_other_than_the_detected_one_needs_a_start_command(plan_of: PlanOf) -> None:
    files = {"main.py": FASTAPI, "sandbox.toml": '[backend]\nruntime = "node20"\n'}
    with pytest.raises(PlanInvalid, match="needs the runtime python312"):
        plan_of(files)


def requested(files: dict[str, str], roles: dict[str, dict[str, object] | None]) -> LaunchPlan:
    return with_request(roles, DictSource(files), RUNTIMES)


def test_requested_roles_replace_those_of_the_project() -> None:
    files = {"backend/main.py": FASTAPI, "frontend/index.html": ""}
    plan = requested(
        files, {"backend": {"port": 9000}, "frontend": None, "worker": {"start": "python w.py", "root": "backend"}}
    )
    assert list(plan.roles) == ["backend", "worker"]
    backend, worker = plan.roles.values()
    assert (backend.root, backend.port, backend.framework) == ("backend", 9000, "fastapi")
    assert backend.start == "uvicorn main:app --host 0.0.0.0 --port 8000 --reload"
    assert (worker.runtime, worker.root, worker.start, worker.port) == ("python312", "backend", "python w.py", None)


def test_what_a_request_repeats_is_not_stated_by_it() -> None:
    files = {"main.py": FASTAPI}
    detected = with_request({"backend": {"env": {"A": "b"}}}, DictSource(files), RUNTIMES).roles["backend"]
    whole = {key: getattr(detected, key) for key in ("runtime", "root", "install", "start", "port", "health")}
    repeated = requested(files, {"backend": {**whole, "env": {"C": "d"}}}).roles["backend"]
    assert (repeated.stated, repeated.framework, repeated.env) == ((), "fastapi", {"C": "d"})
    changed = requested(files, {"backend": {**whole, "port": 9000}}).roles["backend"]
    assert (changed.stated, changed.port, changed.start) == (("port",), 9000, detected.start)
    started = requested(files, {"backend": {**whole, "start": "python x.py"}}).roles["backend"]
    assert (started.stated, started.port) == (("port", "health"), 8000)


def test_a_requested_plan_needs_no_detection() -> None:
    plan = requested({"x.js": ""}, {"web": {"runtime": "node20", "start": "node x.js", "port": 1234, "install": ""}})
    assert (plan.roles["web"].install, plan.preview_port) == (None, 1234)


def test_a_role_of_the_manifest_can_be_changed_in_the_request() -> None:
    files = {"sandbox.toml": '[web]\nruntime = "node20"\nroot = "a"\nstart = "node x.js"\nport = 1\n', "a/x.js": ""}
    web = requested(files, {"web": {"env": {"A": "b"}}}).roles["web"]
    assert (web.root, web.start, web.port, web.env) == ("a", "node x.js", 1, {"A": "b"})


@pytest.mark.parametrize(
    ("roles", "named"),
    [
        ({"web": {"runtime": "node20"}}, r"the plan of the request: \[web\] does not set start"),
        ({"web": {"runtime": "ruby", "start": "x"}}, "known runtimes are"),
        ({"web": {"runtime": "node20", "start": "x", "root": "nowhere"}}, "names the folder .nowhere"),
        ({"web": {"runtime": "node20", "start": "x", "root": "../.."}}, "root is invalid"),
        ({"web": None}, "it leaves no role"),
        ({"web": {"strat": "x"}}, "strat is unknown"),
    ],
)
def test_an_invalid_requested_plan(roles: dict[str, dict[str, object] | None], named: str) -> None:
    with pytest.raises(PlanInvalid, match=named):
        requested({"README.md": ""}, roles)
