"""What is done with the content of a project, in worker processes only: checking, packing, and planning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.domain.plan import LaunchPlan
from sandbox.projects.archive import ArchiveKind, NormalisedProject, normalise
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.detection.detect import PlanUndetected, RuntimeRules
from sandbox.projects.manifest import PlanInvalid, make_plan, with_request
from sandbox.projects.project import PlanProblem, RequestedPlan
from sandbox.projects.source import open_source
from sandbox.workers import InputTooComplex, WorkLimits

#: To unpack and pack half a gigabyte takes half a minute of processor time.
UPLOAD_LIMITS = WorkLimits(cpu_seconds=120, memory_bytes=768 * 1024 * 1024, deadline_seconds=300)
PLAN_LIMITS = WorkLimits(cpu_seconds=20, memory_bytes=512 * 1024 * 1024, deadline_seconds=60)


@dataclass(frozen=True, slots=True)
class PreparedProject:
    """An upload that was checked and packed anew."""

    archive: NormalisedProject
    plan: LaunchPlan | PlanProblem


def prepare(
    upload: Path, kind: ArchiveKind, limits: ArchiveLimits, target: Path, runtimes: Sequence[RuntimeRules]
) -> PreparedProject:
    """Check an uploaded archive, write its project to `target`, and plan its launch. Raises ArchiveRefused."""
    archive = normalise(upload, kind, limits, target)
    try:
        return PreparedProject(archive, plan_archive(target, runtimes))
    except PlanUndetected as error:
        return PreparedProject(archive, PlanProblem(error.code, error.message, error.hint, error.looked_at))
    except (PlanInvalid, InputTooComplex) as error:
        return PreparedProject(archive, PlanProblem(error.code, error.message, error.hint))


def plan_archive(archive: Path, runtimes: Sequence[RuntimeRules], requested: RequestedPlan | None = None) -> LaunchPlan:
    """The plan of a `.tar.gz` that `prepare` has written, with the roles that were `requested` in place of its own.

    Raises PlanUndetected, PlanInvalid, and InputTooComplex for files that are nested too deeply.
    """
    try:
        with open_source(archive) as source:
            return with_request(requested, source, runtimes) if requested else make_plan(source, runtimes)
    except RecursionError as error:
        raise InputTooComplex(
            "A file of the project is nested too deeply to be read.", hint="Describe the launch in sandbox.toml."
        ) from error
