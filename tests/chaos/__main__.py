"""A fault run (`make chaos`): faults at random times under load, and what they did, counted.

CHAOS_FAULTS sets the number of faults (default 1000), CHAOS_SEED the seed of their choice and times, and CHAOS_KINDS
the kinds of faults, by comma (default all). The exit code is 1 if a counter is not 0.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.acceptance.api import SseEvent
from tests.chaos.counts import Counts
from tests.chaos.faults import ALONE, BY_ADMIN, FAULTS, Target
from tests.chaos.sessions import (
    PROJECT,
    PROJECT_ID,
    ROLES,
    Kept,
    Shown,
    event_faults,
    installs,
    judge,
    launch,
    runs_of,
    wait_until,
)
from tests.chaos.world import Impatience, World, own_world
from tests.own_engine import require_own_namespace

#: Sessions that are kept while others are launched and ended.
KEPT = 3
#: Seconds after which a state that is not true counts as misreported, and a session that is not back as lost.
TRUTH_SECONDS = 120.0
RETURN_SECONDS = 180.0
#: Seconds in which a session comes back by itself, and seconds after which an admin recovers it where it does not.
BY_ITSELF_SECONDS = 60.0
ADMIN_SECONDS = 3.0
#: Seconds that the load has to end. It may wait for a service that is away, which matters no more then.
CHURN_ENDS_SECONDS = 10.0
#: The share of faults that come together with a second one.
TOGETHER = 0.25
TWO = "two at a time"


class Run:
    """One fault run."""

    def __init__(self, world: World, chance: random.Random, kinds: list[str]) -> None:
        self._world = world
        self._chance = chance
        self._kinds = kinds
        self._kept: list[Kept] = []
        self._churning = threading.Event()
        self.counts = Counts()

    def go(self, faults: int) -> None:
        """Let this number of faults happen."""
        self._world.api.upload(PROJECT_ID, PROJECT)
        self._churning.set()
        churn = threading.Thread(target=self._churn, args=(random.Random(self._chance.random()),), daemon=True)
        churn.start()
        done, began = 0, time.monotonic()
        try:
            while done < faults:
                done += self._round(min(faults - done, 2))
                rate = 3600 * done / (time.monotonic() - began)
                findings = len(self.counts.notes)
                print(f"{done} of {faults} faults, {rate:.0f} in an hour, {findings} findings", flush=True)
        finally:
            self._churning.clear()
            churn.join(CHURN_ENDS_SECONDS)
        self._end()

    def _round(self, most: int) -> int:
        """One fault, or two at a time; how many."""
        kinds = [self._chance.choice(self._kinds)]
        others = [kind for kind in self._kinds if kind not in ALONE and kind != kinds[0]]
        if most > 1 and others and self._chance.random() < TOGETHER:
            kinds.append(self._chance.choice(others))
        self._kept.append(launch(self._world))
        time.sleep(self._chance.uniform(0, 3))
        target = Target(self._chance.choice(self._kept).session_id, random.Random(self._chance.random()))
        names = " and ".join(kinds)
        print(f"-- {names}", flush=True)
        with ThreadPoolExecutor(len(kinds)) as pool:
            list(pool.map(lambda kind: FAULTS[kind](self._world, target), kinds))
        # Which of two faults had an effect is not known.
        self._verify(kinds, names)
        return len(kinds)

    def _verify(self, kinds: list[str], names: str) -> None:
        """Compare what is shown with what is, and bring everything back."""
        self.counts.names = names
        fault, times = kinds[0] if len(kinds) == 1 else TWO, len(kinds)
        try:
            seconds = self._wait_for_truth(fault)
            self._bring_back(fault, by_admin=not BY_ADMIN.isdisjoint(kinds))
        except Impatience as error:
            self.counts.count("lost", fault, f"the service: {error}")
            seconds = TRUTH_SECONDS
        self.counts.took(fault, times, seconds)
        self._check_events(fault)
        self._check_ended(fault)
        while len(self._kept) > KEPT:
            self._let_go(self._kept.pop(0))
        for mistake in self._world.take_mistakes():
            self.counts.count("misreported", fault, f"status 500 to {mistake}")

    def _wait_for_truth(self, fault: str) -> float:
        """Seconds until every state that is shown is true and no launch is under way."""
        began = time.monotonic()
        true_since: float | None = None
        while time.monotonic() - began < TRUTH_SECONDS:
            with ThreadPoolExecutor(len(self._kept)) as pool:
                verdicts = list(pool.map(partial(judge, self._world), self._kept))
            if all(verdict.shown is Shown.TRUE for verdict in verdicts):
                true_since = true_since or time.monotonic()
                if all(verdict.status != "creating" for verdict in verdicts):
                    return true_since - began
            else:
                true_since = None
            time.sleep(0.2)
        for kept, verdict in zip(self._kept, verdicts, strict=True):
            if verdict.shown is not Shown.TRUE:
                what = f"{kept.session_id[:8]} is shown as {verdict.status or 'nothing'}: {verdict.reason}"
                self.counts.count("misreported", fault, what)
        return TRUTH_SECONDS if true_since is None else true_since - began

    def _bring_back(self, fault: str, *, by_admin: bool) -> None:
        """Recover, as an admin would, the sessions that are in `error` or cannot be used.

        Without `by_admin` they are to come back by themselves, and count as lost if they do not.
        """
        for kept in [kept for kept in self._kept if not self._is_well(kept)]:
            if wait_until(partial(self._is_well, kept), ADMIN_SECONDS if by_admin else BY_ITSELF_SECONDS):
                continue
            verdict = judge(self._world, kept)
            if not by_admin:
                what = f"{kept.session_id[:8]} does not come back by itself: {verdict.status} {verdict.reason}"
                self.counts.count("lost", fault, what)
            print(f"   {kept.session_id[:8]} is recovered: {verdict.status} {verdict.reason}", flush=True)
            self._recover(kept)
            if wait_until(partial(self._is_well, kept), RETURN_SECONDS):
                self.counts.recovered[fault] += 1
                continue
            verdict = judge(self._world, kept)
            self.counts.count("lost", fault, f"{kept.session_id[:8]}: {verdict.status} {verdict.reason}")
            self._kept.remove(kept)
            self._let_go(kept)

    def _recover(self, kept: Kept) -> None:
        """Have the service recover the session; relaunch it if it leaves it as it is."""

        def is_under_way() -> bool:
            return judge(self._world, kept).status in ("creating", "running")

        self._world.call("POST", "/api/v1/admin/recovery", json={"session_ids": [kept.session_id]})
        if not wait_until(is_under_way, 5):
            self._world.call("POST", f"/api/v1/sessions/{kept.session_id}/relaunch")

    def _is_well(self, kept: Kept) -> bool:
        verdict = judge(self._world, kept)
        return verdict.status == "running" and verdict.shown is Shown.TRUE and not verdict.reason

    def _check_events(self, fault: str) -> None:
        for kept in self._kept:
            stored = self._stored(kept)
            kept.follower.wait_for(len(stored), 30)
            seen = [number for number in kept.follower.ids if number <= len(stored)]
            for counter, note in event_faults(stored, seen).items():
                self.counts.count(counter, fault, f"{kept.session_id[:8]}: {note}")
            for role in ROLES:
                times = installs(self._world, kept, role)
                if times > runs_of(stored):
                    self.counts.count("doubled", fault, f"{kept.session_id[:8]}: {times} installs of {role}")

    def _stored(self, kept: Kept) -> list[SseEvent]:
        while True:
            try:
                return list(self._world.api.events(kept.session_id, last_event_id=0))
            except Exception as error:  # noqa: BLE001 - the service is away for a moment
                print(f"   events are read again: {error!r:.100}", flush=True)
                time.sleep(0.5)

    def _check_ended(self, fault: str) -> None:
        """Every session that was deleted ends, and leaves nothing on the engine."""
        for session_id in self._world.take_ended():
            if not wait_until(partial(self._is_over, session_id), 90):
                self.counts.count("leaked", fault, f"{session_id[:8]} was deleted and does not end")
            elif not wait_until(partial(self._has_nothing, session_id), 30):
                self.counts.count("leaked", fault, f"{session_id[:8]}: {self._world.resources().get(session_id)}")

    def _is_over(self, session_id: str) -> bool:
        answer = self._world.call("GET", f"/api/v1/sessions/{session_id}")
        return answer.status_code == 404 or answer.json().get("status") == "terminated"

    def _has_nothing(self, session_id: str) -> bool:
        return not self._world.resources().get(session_id)

    def _let_go(self, kept: Kept) -> None:
        self._world.call("DELETE", f"/api/v1/sessions/{kept.session_id}")
        self._world.ended.append(kept.session_id)
        kept.follower.close()

    def _churn(self, chance: random.Random) -> None:
        """Create sessions and delete them again, often in the middle of their launch."""
        while self._churning.is_set():
            try:
                kept = launch(self._world)
                time.sleep(chance.uniform(0, 6))
                self._let_go(kept)
            except Impatience as error:
                self.counts.count("lost", "load", str(error))
            except RuntimeError:
                return  # the client was closed: the run has ended

    def _end(self) -> None:
        for kept in self._kept:
            self._let_go(kept)
        self._check_ended("the end")
        listed = self._listed()
        for session_id in sorted(listed - self._world.created):
            self.counts.count("doubled", "the end", f"{session_id[:8]} was not asked for")
        for session_id in sorted(self._world.created - listed):
            self.counts.count("lost", "the end", f"{session_id[:8]} is not listed")

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


def main() -> int:
    require_own_namespace()
    # So that everything is stopped and removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    faults, seed = int(os.environ.get("CHAOS_FAULTS", "1000")), int(os.environ.get("CHAOS_SEED", "1"))
    kinds = [kind for kind in os.environ.get("CHAOS_KINDS", "").split(",") if kind] or list(FAULTS)
    began = time.monotonic()
    with own_world() as world:
        run = Run(world, random.Random(seed), kinds)
        try:
            run.go(faults)
        finally:
            print(f"\n{run.counts.table()}\n", *(f"- {note}" for note in run.counts.notes), sep="\n", flush=True)
            print(f"seed {seed}, {faults} faults, {time.monotonic() - began:.0f} s", flush=True)
        return 1 if run.counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
