"""A launch that fails teaches a lesson, and the second launch of the project succeeds by itself."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.api import Api, SseEvent
from tests.acceptance.previews import page, preview
from tests.acceptance.service import Service

#: The app imports a package that it does not declare.
UNDECLARED = {
    "requirements.txt": "flask\n",
    "app.py": "import yaml\nfrom flask import Flask\napp = Flask(__name__)\n\n"
    '@app.get("/")\ndef index():\n    return yaml.safe_dump({"sum": 1 + 1})\n',
}


def lessons_in(events: list[SseEvent]) -> list[str]:
    return [event.data["line"] for event in events if event.event == "log" and "lesson" in event.data]


def test_a_launch_that_failed_succeeds_the_second_time(user: Api) -> None:
    user.upload("undeclared", UNDECLARED)
    failed, events = user.launch(project_id="undeclared")
    assert (failed["status"], failed["error"]["code"]) == ("error", "app_exited")
    assert lessons_in(events) == []
    launched, events = user.launch(project_id="undeclared")
    assert launched["status"] == "running"
    (lesson,) = launched["lessons"]
    assert (lesson["role"], lesson["remedy"]) == ("backend", "install_package")
    assert lessons_in(events) == [f"lesson {lesson['lesson_id']}: {lesson['change']}"]
    with preview(user, launched) as client:
        assert page(client) == "sum: 2\n"
    without, events = user.launch(project_id="undeclared", lessons=False)
    assert (without["status"], without["lessons"], lessons_in(events)) == ("error", [], [])
    for session in (failed, launched, without):
        user.end(session["session_id"])


def test_the_command_line_says_which_lesson_helped(service: Service, tmp_path: Path) -> None:
    for name, content in UNDECLARED.items():
        (tmp_path / name).write_text(content)
    first = service.command("create", str(tmp_path), "--project", "undeclared-by-cli")
    assert first.returncode == 1
    second = service.command("create", str(tmp_path), "--project", "undeclared-by-cli")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "installs pyyaml too, because an earlier launch failed with app_exited" in second.stdout
    without = service.command("create", str(tmp_path), "--project", "undeclared-by-cli", "--no-lessons")
    assert without.returncode == 1
    lessons = json.loads(service.command("lessons", "list", "--json").stdout)["items"]
    assert "install_package" in {(lesson["trigger"] or {}).get("remedy") for lesson in lessons}
    shown = service.command("lessons", "list")
    assert "too few to tell" in " ".join(shown.stdout.split()), shown.stdout + shown.stderr
    refined = service.command("lessons", "refine")
    assert refined.stdout.startswith("read "), refined.stdout + refined.stderr
    listed = json.loads(service.command("list", "--json", "--project", "undeclared-by-cli").stdout)["items"]
    service.command("kill", *(session["session_id"] for session in listed))
