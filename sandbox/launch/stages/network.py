"""Stage `network`: creates a network for a session of several roles, or whose egress is restricted.

Other sessions use the shared bridge network.
"""

from __future__ import annotations

from sandbox.domain.stages import StageName
from sandbox.engine.base import ResourceKind
from sandbox.engine.labels import network_name
from sandbox.errors import EngineError, StageFailed
from sandbox.launch.stage import StageContext, StageResult


class NetworkStage:
    name = StageName.NETWORK

    async def run(self, context: StageContext) -> StageResult:
        session = context.session
        if not context.plan.has_own_network(session.egress):
            return StageResult(skipped=True)
        session_id = session.session_id
        await context.journal.record_resources([(ResourceKind.NETWORK, network_name(session_id), None)])
        try:
            await context.engine.ensure_network(session_id, context.plan.reach(session.egress))
        except EngineError as error:
            if not error.code.startswith("egress_"):
                raise
            raise StageFailed(error.code, error.message, error.hint) from error
        return StageResult()
