"""Plans that are given in the request for a session."""

from __future__ import annotations

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview

SERVER = "require('http').createServer((q, a) => a.end(process.env.NAME)).listen(process.env.PORT)\n"


def test_a_project_whose_start_is_not_known_is_launched_with_the_plan_of_the_request(user: Api) -> None:
    project = user.upload("unplanned", {"jobs/odd-name.js": SERVER, "README.md": ""})
    assert (project["plan"], project["plan_problem"]["code"]) == (None, "plan_undetected")
    role = {"runtime": "node20", "root": "jobs", "start": "node odd-name.js", "port": 4321, "env": {"NAME": "first"}}
    session, _ = user.launch(project_id="unplanned", plan={"web": role})
    assert (session["status"], session["preview_port"]) == ("running", 4321), session["error"]
    with preview(user, session) as visitor:
        assert page(visitor) == "first"
    answer = user.http.post(f"/api/v1/sessions/{session['session_id']}/relaunch")
    assert answer.status_code == 202, answer.text
    list(user.events(session["session_id"]))
    with preview(user, session) as visitor:
        assert page(visitor) == "first"
    user.end(session["session_id"])


def test_a_plan_without_a_project_or_without_a_start_is_refused(user: Api) -> None:
    user.upload("planned", {"index.html": "<h1>planned</h1>"})
    for body, named in (
        ({"plan": {"web": {"runtime": "node20", "start": "x"}}}, "without a project"),
        ({"project_id": "planned", "plan": {"frontend": None}}, "no role"),
        ({"project_id": "planned", "plan": {"web": {"runtime": "ruby", "start": "x"}}}, "runtime"),
    ):
        answer = user.http.post("/api/v1/sessions", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "plan_invalid"), answer.text
        assert named in answer.json()["detail"]
