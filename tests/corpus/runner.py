"""Makes a project of the corpus, launches it, and looks at its preview."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from tests.acceptance.api import Api
from tests.corpus.entry import Entry

GENERATE_SECONDS = 300
_PACK = "tar -czf project.tar.gz --exclude=node_modules --exclude=.git -C app ."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one entry. `problem` is "" if its own page was seen."""

    entry: Entry
    plan: str
    seconds: float
    problem: str


class Corpus:
    """Runs entries one after the other. Generators run in one blank session for each runtime."""

    def __init__(self, url: str, token: str) -> None:
        self._api = Api(url, token)
        self._makers: dict[str, str] = {}

    def close(self) -> None:
        """End the sessions in which generators ran."""
        for session_id in self._makers.values():
            self._api.end(session_id)

    def run(self, entry: Entry) -> Outcome:
        """Make, launch and look at one project."""
        try:
            archive = self._generated(entry) if entry.command else _packed(entry)
            project = self._api.put_archive("corpus", archive)
        except (AssertionError, httpx.HTTPError) as error:
            return Outcome(entry, "", 0.0, f"not made: {str(error)[-300:]}")
        if project["plan"] is None:
            return Outcome(entry, "", 0.0, project["plan_problem"]["message"][:300])
        plan = "; ".join(f"{name}: `{role['start']}`" for name, role in project["plan"].items())
        began = time.monotonic()
        session_id = self._api.create(project_id="corpus", idle_timeout_seconds=1800)["session_id"]
        try:
            for _ in self._api.events(session_id):
                pass
            session, seconds = self._api.get(session_id), time.monotonic() - began
            return Outcome(entry, plan, seconds, self._look(entry, session))
        except httpx.HTTPError as error:
            return Outcome(entry, plan, time.monotonic() - began, f"no answer: {error!r}")
        finally:
            # Only the next projects need it to be gone, and a busy machine takes its time.
            with contextlib.suppress(AssertionError):
                self._api.end(session_id)

    def _generated(self, entry: Entry) -> bytes:
        if entry.runtime not in self._makers:
            session, _ = self._api.launch(runtime_type=entry.runtime, idle_timeout_seconds=7200)
            self._makers[entry.runtime] = session["session_id"]
        session_id = self._makers[entry.runtime]
        command = f"rm -rf app project.tar.gz && {entry.command} < /dev/null && {_PACK}"
        env = {"CI": "1", "npm_config_yes": "true"}
        self._api.http.timeout = GENERATE_SECONDS + 10
        result = self._api.exec(session_id, command, timeout_seconds=GENERATE_SECONDS, env=env)
        printed = result["stdout"][-300:] + result["stderr"][-300:]
        assert result["exit_code"] == 0, printed or f"{entry.command}: exit code {result['exit_code']}"
        answer = self._api.http.get(f"/api/v1/sessions/{session_id}/files", params={"path": "project.tar.gz"})
        assert answer.status_code == 200, answer.text
        return answer.content

    def _look(self, entry: Entry, session: dict[str, Any]) -> str:
        if session["status"] != "running":
            error = session["error"] or {}
            return f"{error.get('code')}: {str(error.get('message'))[:400]}"
        link = urlsplit(session["preview_url"])
        # Some servers show their page only to those who ask for one.
        headers = {"Host": link.netloc, "Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        with httpx.Client(base_url=self._api.url, headers=headers, timeout=90, trust_env=False) as visitor:
            opened = visitor.get(f"{link.path}?{link.query}")
            location = urljoin(opened.headers.get("location", "/"), entry.path) if entry.path != "/" else ""
            answer = visitor.get(location or opened.headers.get("location", "/"))
            for _ in range(5):
                if not answer.is_redirect:
                    break
                target = urlsplit(answer.headers["location"])
                answer = visitor.get(target.path + (f"?{target.query}" if target.query else ""))
        if answer.status_code >= 400:
            return f"its page answers {answer.status_code}: {answer.text[:200]}"
        return "" if entry.marker in answer.text else f"its page does not contain {entry.marker!r}: {answer.text[:200]}"


def _packed(entry: Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in entry.files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()
