"""Stage `network`: creates a network for a session of several roles. A single role uses the shared bridge network."""

from __future__ import annotations

from sandbox.domain.stages import StageName
from sandbox.engine.base import ResourceKind
from sandbox.engine.labels import network_name
from sandbox.launch.stage import StageContext, StageResult


class NetworkStage:
    name = StageName.NETWORK

    async def run(self, context: StageContext) -> StageResult:
        if len(context.plan.roles) < 2:
            return StageResult(skipped=True)
        session_id = context.session.session_id
        await context.journal.record_resources([(ResourceKind.NETWORK, network_name(session_id), None)])
        await context.engine.ensure_network(session_id)
        return StageResult()
