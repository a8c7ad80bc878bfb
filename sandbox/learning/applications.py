"""Lessons applied to a launch: recorded when its run starts; their outcome is recorded when it ends."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.domain.failures import ruled_out
from sandbox.domain.stages import StageName
from sandbox.learning import store


async def record_applications(
    conn: AsyncConnection, *, pipeline_run_id: str, agents: Sequence[str], project_name: str, runtime: str
) -> int:
    """Record the lessons that these agents follow in the run as applied; returns how many were added.

    These are the agents' active, unexpired lessons that are meant for such a run: of any project or this one, of any
    runtime or this one, and not about a failure that the lesson's trigger names by its signature: those are recorded
    when they are handed out (`launches/`, `prompts.py`).

    May be called again for the same run, after a crash or by two callers at once: no application is recorded twice.
    Runs in the caller's transaction.
    """
    return await store.insert_applications(
        conn, pipeline_run_id=pipeline_run_id, agents=agents, project_name=project_name, runtime=runtime
    )


async def verify_outcomes(
    conn: AsyncConnection,
    *,
    pipeline_run_id: str,
    failure_code: str | None,
    failed_stage: StageName | None,
    reached_stages: set[StageName],
    signature: str | None = None,
) -> int:
    """Record for each lesson applied to a run that has ended whether it helped; returns how many outcomes were set.

    A lesson whose `source_issue_type` is the run's `failure_code` did not prevent it, if it is about any failure with
    that code or about this one's `signature`. One whose issue belongs to a
    stage that was reached and completed did. Every other stays unverified: its stage was not reached, failed for
    another reason, or the issue belongs to no stage of a launch. A failure that any stage can have counts as prevented
    only when the run ended without failing.

    `reached_stages` are the stages that ran; `failed_stage` is the one that did not complete because it failed or the
    run was cancelled. Leave out skipped stages: they had nothing to do and prove nothing. May be called again; outcomes
    that are already set are not changed. Runs in the caller's transaction.
    """
    completed = reached_stages - {failed_stage}
    return await store.set_outcomes(
        conn,
        pipeline_run_id=pipeline_run_id,
        failure_code=failure_code,
        signature=signature,
        ruled_out=ruled_out(completed, run_completed=bool(completed) and failure_code is None and failed_stage is None),
        occurred=f"The run failed with {failure_code}" + (f" at stage {failed_stage}." if failed_stage else "."),
        prevented="{issue} did not occur: the run got past every stage at which it can.",
    )
