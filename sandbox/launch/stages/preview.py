"""Stage `preview`: records the session's ports and announces the preview's URL."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.stages import StageName
from sandbox.launch.stage import SessionPorts, StageContext, StageResult


class PreviewStage:
    name = StageName.PREVIEW

    def __init__(self, preview_url: Callable[[UUID], str]) -> None:
        """`preview_url(session_id)` is the URL of a session's preview, without a signature."""
        self._preview_url = preview_url

    async def run(self, context: StageContext) -> StageResult:
        plan = context.plan
        ports = SessionPorts(preview=plan.preview_port, backend=plan.backend_port)
        if plan.preview_port is None:
            return StageResult(ports=ports, skipped=True)
        url = self._preview_url(context.session.session_id).rstrip("/") + context.session.observations.preview_path
        data = {"url": url, "port": plan.preview_port, "role": plan.preview_role}
        return StageResult(ports=ports, events=(NewEvent(EventType.PREVIEW, data),))
