"""Measures whether lessons help: broken projects that no lesson was written from, with and without them.

1. One half of each family is launched and fails; a refinement run writes lessons from these failures.
2. Each project of the other half is launched and fails. Then it is launched again in four arms, in an order drawn by
   lot: off (lessons switched off), on, placebo (a lesson whose remedy has nothing to do with the failure), and
   retrieval (the remedy for an earlier failure with the same signature, word for word).
3. The outcome is whether the preview answers, and the seconds until then. Arms are compared by pairs.

An arm is data: a copy of the project with the evidence of its failure, which the arm may replace. All launches share
the installs that are kept, as in production. A launch that cannot be measured, for example because a request timed out,
is left out with its pairs and counted. `BENCH_FAMILIES` restricts the families, by comma.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import httpx
import psycopg

from tests.acceptance.api import Api
from tests.acceptance.previews import preview
from tests.acceptance.service import ADMIN_TOKEN
from tests.bench.broken_projects import BrokenProject, corpus
from tests.bench.paired import sign_test, signed_rank_test
from tests.bench.world import world

ARMS = ("off", "on", "placebo", "retrieval")
SEED = 20261130
#: `slow-start` takes longer than this, and everything else less, even on a busy machine.
SERVICE = {
    "SANDBOX_HEALTH_TIMEOUT_SECONDS": "60",
    "SANDBOX_INSTALLS_MB": "1024",
    "SANDBOX_LESSONS_WITHHELD_PERCENT": "0",
    # Lessons are written once, and never from a project that is held out.
    "SANDBOX_REFINEMENT_INTERVAL_SECONDS": "0",
}
PLACEBO = "openssl_of_old_webpack"
AT_ONCE = 3

_COPY = """
    INSERT INTO launch_failures (run_id, pipeline_run_id, user_id, project_id, agents, stage, code, role, runtime,
                                 framework, family, signature, particulars, planned, refined_by)
    SELECT run_id, pipeline_run_id, user_id, %(copy)s, agents, stage, code, role, runtime, framework,
           coalesce(%(family)s, family), coalesce(%(signature)s, signature), coalesce(%(particulars)s, particulars),
           planned, (SELECT max(id) FROM agent_refinement_runs)
      FROM launch_failures WHERE project_id = %(project)s
"""
#: The particulars of the first failure with this signature among those that lessons were written from.
_EARLIER = """
    SELECT earlier.particulars FROM launch_failures AS failure JOIN launch_failures AS earlier USING (signature)
     WHERE failure.project_id = %(project)s AND earlier.project_id LIKE 'written-from-%%'
     ORDER BY earlier.failure_id LIMIT 1
"""
#: A lesson with a remedy that sets a variable of Node.js, which nothing here reads.
_PLACEBO_LESSON = """
    WITH lesson AS (
        INSERT INTO agent_lessons (agent_name, lesson_text, severity, category, source_issue_type)
        VALUES ('Sandbox Launch Pipeline', 'placebo', 'low', 'correctness', 'app_exited') RETURNING id)
    INSERT INTO lesson_triggers (lesson_id, agent_name, signature, remedy, written_by)
    SELECT id, 'Sandbox Launch Pipeline', 'placebo', 'old_openssl', 'person' FROM lesson
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One launch: whether its preview answered, and the seconds until it did or the launch failed."""

    answered: bool
    seconds: float
    lessons: int


#: Of each project and arm; None if the launch could not be measured.
Results = dict[str, dict[str, Outcome | None]]


def main() -> None:
    asyncio.run(_measure())


async def _measure() -> None:
    wanted = {name for name in os.environ.get("BENCH_FAMILIES", "").split(",") if name}
    projects = [project for project in corpus() if not wanted or project.family in wanted]
    async with world(env=SERVICE) as place:
        api = Api(place.service.url, ADMIN_TOKEN)
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            with psycopg.connect(place.dsn, autocommit=True) as connection:
                results = await asyncio.to_thread(_run, api, connection, pool, projects)
        finally:
            # After an interrupt only the launches under way are waited for.
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
    _print(results)


def _run(
    api: Api, connection: psycopg.Connection, pool: ThreadPoolExecutor, projects: Sequence[BrokenProject]
) -> Results:
    _write_lessons(api, connection, pool, projects)
    return _compare(api, connection, pool, [project for project in projects if project.held_out])


def _write_lessons(
    api: Api, connection: psycopg.Connection, pool: ThreadPoolExecutor, projects: Sequence[BrokenProject]
) -> None:
    """Launch the projects that lessons are written from, and write them."""
    known = [project for project in projects if not project.held_out]
    outcomes = list(
        pool.map(lambda project: _launch(api, project, f"written-from-{project.name}", lessons=False), known)
    )
    answer = api.http.post("/api/v1/refinement-runs/execute")
    run = answer.json()
    connection.execute(_PLACEBO_LESSON)
    sound = [project.name for project, outcome in zip(known, outcomes, strict=True) if outcome and outcome.answered]
    families = len({project.family for project in known})
    print(
        f"  {len(known)} projects of {families} families launched: {run['issues_analyzed']} failures read,"
        f" {run['lessons_generated']} lessons"
    )
    if sound:
        print(f"  launched although they were to fail: {', '.join(sound)}")


def _compare(
    api: Api, connection: psycopg.Connection, pool: ThreadPoolExecutor, projects: Sequence[BrokenProject]
) -> Results:
    """The outcome of each held-out project in each arm."""
    firsts = pool.map(lambda project: _launch(api, project, f"first-{project.name}", lessons=False), projects)
    broken = [project for project, first in zip(projects, firsts, strict=True) if first and not first.answered]
    lot = random.Random(SEED)
    trials = [(project, arm) for project in broken for arm in ARMS]
    lot.shuffle(trials)
    for project, arm in trials:
        _give_evidence(connection, project, arm)
    outcomes = pool.map(
        lambda trial: _launch(api, trial[0], f"{trial[1]}-{trial[0].name}", lessons=trial[1] != "off"), trials
    )
    results: Results = {project.name: {} for project in broken}
    for (project, arm), outcome in zip(trials, outcomes, strict=True):
        results[project.name][arm] = outcome
    return results


def _give_evidence(connection: psycopg.Connection, project: BrokenProject, arm: str) -> None:
    values: dict[str, str | None] = {
        "project": f"first-{project.name}",
        "copy": f"{arm}-{project.name}",
        "family": None,
        "signature": None,
        "particulars": None,
    }
    if arm == "placebo":
        values |= {"family": PLACEBO, "signature": "placebo"}
    if arm == "retrieval":
        earlier = connection.execute(_EARLIER, values).fetchone()
        values["particulars"] = json.dumps(earlier[0]) if earlier else None
    connection.execute(_COPY, values)


def _launch(api: Api, project: BrokenProject, project_id: str, *, lessons: bool) -> Outcome | None:
    """Launch a copy of the project under this id, ask its preview, and end it; None if that is not possible."""
    try:
        api.upload(project_id, project.files)
        began = time.monotonic()
        session, _ = api.launch(project_id=project_id, lessons=lessons)
        answered = False
        if session["status"] == "running":
            with preview(api, session) as client:
                answered = client.get("/").status_code == 200
        seconds = time.monotonic() - began
        api.end(session["session_id"])
    except (httpx.HTTPError, AssertionError) as error:
        print(f"  {project_id} was not measured: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return None
    error_code = (session["error"] or {}).get("code", "")
    changes = "; ".join(lesson["change"].partition(", because")[0] for lesson in session["lessons"])
    print(f"  {seconds:6.1f} s  {project_id}: {session['status']} {error_code} {changes}", file=sys.stderr, flush=True)
    return Outcome(answered, seconds, len(session["lessons"]))


def _print(results: Results) -> None:
    print(f"  {len(results)} projects held out, each launched again in four arms (seed {SEED}):")
    print(f"  {'arm':<10} {'answer':>8} {'share':>6} {'had a remedy':>13} {'median seconds to the answer':>29}")
    for arm in ARMS:
        outcomes = [outcome for of_project in results.values() if (outcome := of_project[arm]) is not None]
        answered = [outcome.seconds for outcome in outcomes if outcome.answered]
        share = f"{len(answered) / len(outcomes):.0%}" if outcomes else "-"
        shown = f"{median(answered):.1f}" if answered else "-"
        remedied = sum(outcome.lessons > 0 for outcome in outcomes)
        print(f"  {arm:<10} {f'{len(answered)}/{len(outcomes)}':>8} {share:>6} {remedied:>13} {shown:>29}")
    for other in ("off", "placebo", "retrieval"):
        _print_comparison(other, [(of_project["on"], of_project[other]) for of_project in results.values()])
    print(f"  made worse by lessons: {_names(results, lambda on, off: off.answered and not on.answered)}")
    print(f"  no answer with lessons either: {_names(results, lambda on, off: not on.answered)}")


def _print_comparison(other: str, measured: Sequence[tuple[Outcome | None, Outcome | None]]) -> None:
    pairs = [(on, without) for on, without in measured if on is not None and without is not None]
    better = sum(on.answered and not without.answered for on, without in pairs)
    worse = sum(without.answered and not on.answered for on, without in pairs)
    both = [on.seconds - without.seconds for on, without in pairs if on.answered and without.answered]
    print(
        f"  on against {other}: {len(pairs)} pairs, {better} better, {worse} worse, McNemar (exact)"
        f" p = {sign_test(better, worse):.2g}; seconds where both answer: {len(both)} pairs,"
        f" Wilcoxon p = {signed_rank_test(both):.2g}"
    )


def _names(results: Results, chosen: Callable[[Outcome, Outcome], bool]) -> str:
    """The projects whose outcomes with and without lessons are of this kind."""
    measured = ((name, arms["on"], arms["off"]) for name, arms in results.items())
    return ", ".join(name for name, on, off in measured if on and off and chosen(on, off)) or "none"
