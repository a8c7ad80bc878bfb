"""The rounds of a fault run: faults on several sessions at once, on the whole service, or both, under load.

After each round everything is compared with what is shown, and brought back where it does not come back by itself.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tests.chaos.counts import Counts
from tests.chaos.faults import ALONE, BY_ADMIN, FAULTS, OF_SESSIONS, Target
from tests.chaos.sessions import PROJECTS, Kept, launch
from tests.chaos.verification import Verification
from tests.chaos.world import Impatience, World

T = TypeVar("T")

#: Sessions that are kept while others are launched and ended, and how many of them are replaced in each round.
KEPT = 6
FRESH = 2
#: The most sessions that are struck in one round.
STRUCK = 5
#: The longest time from the beginning of a round to a fault, in which the new sessions are being launched.
SPREAD_SECONDS = 3.0
#: Of the rounds, how many have faults of sessions only, one of the whole service only, and both.
SHAPES = {"sessions": 5, "service": 3, "both": 2}
SEVERAL = "several at once"
#: The load: the longest life of a session that is created and deleted, and the pause before the next one.
LIFE_SECONDS = 6.0
PAUSE_SECONDS = 2.0
#: Seconds that the load has to end. It may wait for a service that is away, which matters no more then.
CHURN_ENDS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a round."""

    kind: str
    kept: Kept
    target: Target
    delay: float


class Run:
    """One fault run."""

    def __init__(self, world: World, chance: random.Random, kinds: list[str]) -> None:
        self._world = world
        self._chance = chance
        self._of_sessions = [kind for kind in kinds if kind in OF_SESSIONS]
        self._of_service = [kind for kind in kinds if kind not in OF_SESSIONS]
        self._kept: list[Kept] = []
        self._churning = threading.Event()
        self.counts = Counts()
        self._verification = Verification(world, self.counts)

    def go(self, faults: int, until: float) -> None:
        """Let this number of faults happen, but none after `until`, a time of `time.monotonic`."""
        for name, project in PROJECTS.items():
            self._world.api.upload(name, project)
        self._churning.set()
        churn = threading.Thread(target=self._churn, args=(random.Random(self._chance.random()),), daemon=True)
        churn.start()
        self._kept = [self._launch() for _ in range(KEPT - FRESH)]
        done, began = 0, time.monotonic()
        try:
            while done < faults and time.monotonic() < until:
                done += self._round(faults - done)
                rate = 3600 * done / (time.monotonic() - began)
                print(
                    f"{done} of {faults} faults, {rate:.0f} in an hour, {len(self.counts.notes)} findings", flush=True
                )
        finally:
            self._churning.clear()
            churn.join(CHURN_ENDS_SECONDS)
        self._end()

    def _round(self, most: int) -> int:
        """Let some faults happen and verify everything; how many."""
        self._kept += [self._launch() for _ in range(FRESH)]
        strikes = self._plan(most)
        names = " and ".join(sorted(strike.kind for strike in strikes))
        began = time.monotonic()
        print(f"-- {names}", flush=True)
        apart = all(strike.kind in OF_SESSIONS for strike in strikes)
        _each(self._strike_and_verify if apart else self._strike, strikes)
        fault = strikes[0].kind if len(strikes) == 1 else SEVERAL
        struck = {strike.kept.session_id for strike in strikes if apart}
        others = [kept for kept in self._kept if kept.session_id not in struck]
        for_admin = {strike.kept.session_id for strike in strikes if strike.kind in BY_ADMIN}

        def settle(kept: Kept) -> float:
            return self._verification.settle(kept, fault, names, by_admin=kept.session_id in for_admin)

        seconds = _each(settle, others)
        if not apart:
            self.counts.took(fault, len(strikes), max(seconds))
        settled = time.monotonic()
        _each(lambda kept: self._verification.check_events(kept, fault, names), self._kept)
        self._verification.check_ended(fault, names)
        self._verification.check_answers(fault, names)
        self._kept = [kept for kept in self._kept if not kept.gone]
        while len(self._kept) > KEPT - FRESH:
            self._verification.let_go(self._kept.pop(0))
        print(f"   {settled - began:.1f} s until all was settled, then {time.monotonic() - settled:.1f} s", flush=True)
        return len(strikes)

    def _plan(self, most: int) -> list[Strike]:
        """The faults of the next round."""
        shapes = [
            shape
            for shape in SHAPES
            if (shape == "service" or self._of_sessions) and (shape == "sessions" or self._of_service)
        ]
        (shape,) = self._chance.choices(shapes, [SHAPES[name] for name in shapes])
        kinds: list[str] = []
        if shape != "sessions":
            kinds.append(self._chance.choice(self._of_service))
            others = [kind for kind in self._of_service if kind not in ALONE and kind != kinds[0]]
            if shape == "both" and others:
                kinds.append(self._chance.choice(others))
        if shape != "service":
            kinds += self._chance.choices(self._of_sessions, k=self._chance.randint(2, STRUCK))
        kinds = kinds[:most]
        sessions = self._chance.sample(self._kept, len(kinds))
        return [self._planned(kind, kept) for kind, kept in zip(kinds, sessions, strict=True)]

    def _planned(self, kind: str, kept: Kept) -> Strike:
        target = Target(kept.session_id, random.Random(self._chance.random()))
        return Strike(kind, kept, target, self._chance.uniform(0, SPREAD_SECONDS))

    def _strike(self, strike: Strike) -> None:
        time.sleep(strike.delay)
        FAULTS[strike.kind](self._world, strike.target)

    def _strike_and_verify(self, strike: Strike) -> None:
        self._strike(strike)
        by_admin = strike.kind in BY_ADMIN
        seconds = self._verification.settle(strike.kept, strike.kind, strike.kind, by_admin=by_admin)
        self.counts.took(strike.kind, 1, seconds)

    def _launch(self) -> Kept:
        return launch(self._world, self._chance.choice(list(PROJECTS)))

    def _churn(self, chance: random.Random) -> None:
        """Create sessions and delete them again, often in the middle of their launch."""
        while self._churning.is_set():
            try:
                kept = launch(self._world, chance.choice(list(PROJECTS)))
                time.sleep(chance.uniform(0, LIFE_SECONDS))
                self._verification.let_go(kept)
                time.sleep(PAUSE_SECONDS)
            except Impatience as error:
                self.counts.count("lost", "load", "load", str(error))
            except RuntimeError:
                return  # the client was closed: the run has ended

    def _end(self) -> None:
        for kept in self._kept:
            self._verification.let_go(kept)
        self._verification.check_ended("the end", "the end")
        self._verification.check_list()


def _each(function: Callable[..., T], items: Iterable[object]) -> list[T]:
    """The results of the function for each item, all at the same time."""
    listed = list(items)
    if not listed:
        return []
    with ThreadPoolExecutor(len(listed)) as pool:
        return list(pool.map(function, listed))
