"""Compares what the service shows with what is, counts what differs, and brings sessions back as an admin would."""

from __future__ import annotations

import time
from functools import partial

from tests.acceptance.api import SseEvent
from tests.chaos.counts import Counts
from tests.chaos.sessions import Kept, Shown, Verdict, event_faults, judge, possible_installs, wait_until
from tests.chaos.world import Impatience, World

#: Seconds after which a state that is not true counts as misreported, and a session that is not back as lost.
TRUTH_SECONDS = 120.0
RETURN_SECONDS = 180.0
#: How long a session may stay lost before it comes back by itself, and before an admin recovers it where it does not.
BY_ITSELF_SECONDS = 60.0
ADMIN_SECONDS = 3.0
#: Pause between two looks at a session.
LOOK_SECONDS = 0.3


class Verification:
    """Counts what faults did. Thread-safe for different sessions."""

    def __init__(self, world: World, counts: Counts) -> None:
        self._world = world
        self._counts = counts

    def settle(self, kept: Kept, fault: str, names: str, *, by_admin: bool) -> float:
        """Wait until what is shown of the session is true, and bring it back; the seconds until it is true.

        `fault` is what the findings are counted as, `names` all faults that have just happened. Without `by_admin` the
        session is to come back by itself, and counts as lost if it does not.
        """
        try:
            seconds = self._until_true(kept, fault, names)
            self._bring_back(kept, fault, names, by_admin=by_admin)
        except Impatience as error:
            self._counts.count("lost", fault, names, f"the service: {error}")
            return TRUTH_SECONDS
        return seconds

    def _until_true(self, kept: Kept, fault: str, names: str) -> float:
        """Wait until no launch is under way; the seconds from when on the state that is shown was true."""
        began = time.monotonic()
        true_since: float | None = None
        while time.monotonic() - began < TRUTH_SECONDS:
            looked = time.monotonic()
            verdict = judge(self._world, kept)
            if verdict.shown is Shown.TRUE:
                true_since = true_since or looked
                if verdict.status != "creating":
                    return true_since - began
            else:
                true_since = None
            time.sleep(LOOK_SECONDS)
        if verdict.shown is not Shown.TRUE:
            what = f"{kept.name} is shown as {verdict.status or 'nothing'}: {verdict.reason}"
            self._counts.count("misreported", fault, names, what)
        return TRUTH_SECONDS if true_since is None else true_since - began

    def _bring_back(self, kept: Kept, fault: str, names: str, *, by_admin: bool) -> None:
        """Recover the session, as an admin would, if it is in `error` or cannot be used."""
        if self._comes_back(kept, ADMIN_SECONDS if by_admin else BY_ITSELF_SECONDS):
            return
        verdict = judge(self._world, kept)
        if not by_admin:
            what = f"{kept.name} does not come back by itself: {verdict.status} {verdict.reason}"
            self._counts.count("lost", fault, names, what)
        print(f"   {kept.name} is recovered: {verdict.status} {verdict.reason}", flush=True)
        self._recover(kept)
        if self._comes_back(kept, RETURN_SECONDS):
            self._counts.brought_back(fault)
            return
        verdict = judge(self._world, kept)
        self._counts.count("lost", fault, names, f"{kept.name}: {verdict.status} {verdict.reason}")
        kept.gone = True
        self.let_go(kept)

    def _comes_back(self, kept: Kept, seconds: float) -> bool:
        """Whether the session is well again before it has been so long in another state than a launch."""
        give_up = time.monotonic() + RETURN_SECONDS
        left_at: float | None = None
        while (now := time.monotonic()) < give_up:
            verdict = judge(self._world, kept)
            if _is_well(verdict):
                return True
            under_way = verdict.status == "creating" or verdict.shown is Shown.NOTHING
            left_at = None if under_way else left_at or now
            if left_at is not None and now - left_at > seconds:
                return False
            time.sleep(LOOK_SECONDS)
        return False

    def _recover(self, kept: Kept) -> None:
        """Have the service recover the session; relaunch it if it leaves it as it is."""

        def is_under_way() -> bool:
            return judge(self._world, kept).status in ("creating", "running")

        self._world.call("POST", "/api/v1/admin/recovery", json={"session_ids": [kept.session_id]})
        if not wait_until(is_under_way, 5):
            self._world.call("POST", f"/api/v1/sessions/{kept.session_id}/relaunch")

    def check_events(self, kept: Kept, fault: str, names: str) -> None:
        """Count events of the session that are doubled or missing, and installs that ran twice."""
        if kept.gone:
            return
        stored = self._stored(kept)
        kept.follower.wait_for(len(stored), 30)
        seen = [number for number in kept.follower.ids if number <= len(stored)]
        for counter, note in event_faults(stored, seen).items():
            self._counts.count(counter, fault, names, f"{kept.name}: {note}")
        for role, times in kept.installs.items():
            if times > possible_installs(stored):
                self._counts.count("doubled", fault, names, f"{kept.name}: {times} installs of {role}")

    def _stored(self, kept: Kept) -> list[SseEvent]:
        while True:
            try:
                return list(self._world.api.events(kept.session_id, last_event_id=0))
            except Exception as error:  # noqa: BLE001 - the service is away for a moment
                print(f"   events are read again: {error!r:.100}", flush=True)
                time.sleep(0.5)

    def check_ended(self, fault: str, names: str) -> None:
        """Every session that was deleted ends, and leaves nothing on the engine."""
        for session_id in self._world.take_ended():
            if not wait_until(partial(self._is_over, session_id), 90):
                self._counts.count("leaked", fault, names, f"{session_id[:8]} was deleted and does not end")
            elif not wait_until(partial(self._has_nothing, session_id), 30):
                left = self._world.resources().get(session_id)
                self._counts.count("leaked", fault, names, f"{session_id[:8]}: {left}")

    def check_answers(self, fault: str, names: str) -> None:
        """Count the answers with status 500."""
        for mistake in self._world.take_mistakes():
            self._counts.count("misreported", fault, names, f"status 500 to {mistake}")

    def check_list(self) -> None:
        """At the end, the sessions that are listed are those that were created, and nothing belongs to no session."""
        listed, end = self._listed(), "the end"
        for session_id in sorted(listed - self._world.created):
            self._counts.count("doubled", end, end, f"{session_id[:8]} was not asked for")
        for session_id in sorted(self._world.created - listed):
            self._counts.count("lost", end, end, f"{session_id[:8]} is not listed")
        for item in self._world.call("GET", "/api/v1/admin/recovery").json()["items"]:
            if item["action"] == "remove":
                self._counts.count("leaked", end, end, f"belongs to no session: {item}")

    def _listed(self) -> set[str]:
        """The ids of all sessions."""
        listed: set[str] = set()
        query: dict[str, str] = {"limit": "500"}
        while True:
            page = self._world.call("GET", "/api/v1/sessions", params=query).json()
            listed |= {session["session_id"] for session in page["items"]}
            if page["next_cursor"] is None:
                return listed
            query["cursor"] = page["next_cursor"]

    def _is_over(self, session_id: str) -> bool:
        answer = self._world.call("GET", f"/api/v1/sessions/{session_id}")
        return answer.status_code == 404 or answer.json().get("status") == "terminated"

    def _has_nothing(self, session_id: str) -> bool:
        return not self._world.resources().get(session_id)

    def let_go(self, kept: Kept) -> None:
        """Delete the session. `check_ended` sees to it that it ends."""
        self._world.call("DELETE", f"/api/v1/sessions/{kept.session_id}")
        self._world.ended.append(kept.session_id)
        kept.follower.close()


def _is_well(verdict: Verdict) -> bool:
    """Whether the session runs and can be used."""
    return verdict.status == "running" and verdict.shown is Shown.TRUE and not verdict.reason
