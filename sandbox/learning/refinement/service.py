"""Refinement runs. A run reads in one transaction what is unread, writes lessons, and records what it did."""

from __future__ import annotations

import logging
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.learning.refinement import store
from sandbox.learning.refinement.issues import Issue, group, of_launch, of_log, of_tests
from sandbox.learning.refinement.rules import draft, parts, with_evidence, worth_a_lesson
from sandbox.learning.refinement.store import Scope
from sandbox.learning.refinement.wording import Wording, WordingRefused

log = logging.getLogger(__name__)

Trigger = Literal["rework", "hitl", "scheduled"]

#: Days that a lesson stays in use after it was written or seen again.
KEPT_DAYS = 90
#: Unread failures of one signature that cause a run by themselves.
REPEATED = 2
#: Most lessons that one run has worded.
WORDED_AT_ONCE = 10


class Refiner:
    """Carries out refinement runs. Any number of replicas may, at once."""

    def __init__(self, db: Database, wording: Wording | None = None) -> None:
        """`wording`: the model that words lessons; without it they keep the rules' words."""
        self._db = db
        self._wording = wording

    async def run(self, triggered_by: Trigger, scope: Scope | None = None) -> int:
        """Carry out one run and return its id.

        Its lessons, what it counts as read and its status are one transaction: a run that fails or whose process dies
        has written nothing, and what it had read is unread again. Raises what made it fail.
        """
        scope = scope or Scope()
        await self.fail_crashed()
        run_id = 0
        try:
            async with self._db.transaction() as work:
                run_id = await store.reserve(work)
                async with self._db.transaction() as conn:
                    await store.begin(conn, run_id, triggered_by, scope.pipeline_run_id)
                issues, lessons = await self._write(work, run_id, scope)
                await store.complete(work, run_id, issues=issues, lessons=lessons)
        except Exception as error:
            async with self._db.transaction() as conn:
                await store.fail(conn, run_id, f"{type(error).__name__}: {error}")
            raise
        if scope.project_id is None:
            # A launch that waits for its lesson does not wait for a model.
            await self._word()
        log.info("refinement run %d (%s): %d issues, %d new lessons", run_id, triggered_by, issues, lessons)
        return run_id

    async def rework(self, user_id: str, project_id: str) -> None:
        """Read the unread failures of a project that is launched again; nothing if there are none."""
        async with self._db.read() as conn:
            unread = await store.has_unread(conn, user_id, project_id)
        if unread:
            await self.run("rework", Scope(user_id=user_id, project_id=project_id))

    async def rework_repeated(self) -> None:
        """Carry out a run if one signature has failed repeatedly since the last."""
        await self.fail_crashed()
        async with self._db.read() as conn:
            repeated = await store.has_repeated(conn, REPEATED)
        if repeated:
            await self.run("rework")

    async def fail_crashed(self) -> None:
        """Mark runs whose process has died as failed."""
        async with self._db.transaction() as conn:
            for run_id in await store.fail_crashed(conn):
                log.warning("refinement run %d did not end: its process has died", run_id)

    async def _word(self) -> None:
        """Have the model word lessons that have the rules' words. What it refuses keeps them, with the reason."""
        if self._wording is None:
            return
        async with self._db.read() as conn:
            lessons = await store.to_word(conn, WORDED_AT_ONCE)
        for lesson in lessons:
            known = parts(lesson.lesson_text)
            if known is None:
                continue
            advice, quotation = known
            try:
                sentence = await self._wording.word(advice, quotation)
            except WordingRefused as error:
                log.info("lesson %d keeps the rules' words: %s", lesson.id, error)
                async with self._db.transaction() as conn:
                    await store.not_worded(conn, lesson.id, str(error))
                continue
            async with self._db.transaction() as conn:
                text = with_evidence(sentence, quotation)
                await store.word(conn, lesson.id, before=lesson.lesson_text, text=text)

    async def _write(self, conn: AsyncConnection, run_id: int, scope: Scope) -> tuple[int, int]:
        """Write the lessons of a run: the number of issues it analysed, and of lessons that are new."""
        await store.lock_writing(conn)
        issues: list[Issue] = []
        rows = await store.take_failures(conn, run_id, scope)
        analysed = len(rows)
        issues += [issue for row in rows for issue in of_launch(row)]
        if scope.everything:
            found = [
                issue
                for row in await store.take_tests(conn, run_id)
                for issue in of_tests(row.test_type, row.failed_tests)
            ]
            found += [of_log(row.service, row.message) for row in await store.take_logs(conn)]
            analysed += len(found)
            issues += found
        groups = group(issues)
        known = await store.known_lessons(conn, [(one.agent_name, one.signature) for one in groups])
        added = 0
        for one in groups:
            lesson = known.get((one.agent_name, one.signature))
            before = lesson.occurrences if lesson else 0
            if lesson is not None:
                await store.strengthen(conn, run_id, lesson.lesson_id, draft(one, before), len(one.issues), KEPT_DAYS)
            elif worth_a_lesson(one, before):
                await store.add(conn, run_id, draft(one, before), len(one.issues), KEPT_DAYS)
                added += 1
        return analysed, added
