"""Leads the localhost of each role to the apps of the others: `localhost:8000` is the back end, as it is at home.

An app that listens on such a port itself comes first. So a role's localhost leads elsewhere only once its own app
answers, or has had its time and may be waiting for the other; and only to apps that answer: until then the port is
closed, as it is anywhere. An app that listens on 127.0.0.1 only is as good as any, as it is at home.
"""

from __future__ import annotations

import asyncio

from sandbox.concurrency import for_each
from sandbox.launch.environment import ports_of_others
from sandbox.launch.stage import StageContext

#: An app that has not answered for this long may be waiting for another's port.
PATIENCE_SECONDS = 5.0


async def stop_forwarding(context: StageContext) -> None:
    """Before apps are started: nothing leads anywhere, so that they find every port free."""
    session_id = context.session.session_id
    await for_each(context.plan.roles, lambda role: context.engine.guest(session_id, role).forward_ports({}))


class PortForwarding:
    """Of one attempt at the stage that waits for the apps; the next says the same to the guest agents again."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._answering: set[str] = set()
        #: Roles whose localhost may lead elsewhere: from the beginning those that start nothing.
        self._ready = {role for role, plan in context.plan.roles.items() if not plan.start}
        self._told: dict[str, tuple[dict[int, str], int | None]] = {}
        self._telling = asyncio.Lock()

    async def answers(self, role: str) -> None:
        """Its app is up."""
        self._answering.add(role)
        await self.is_slow(role)

    async def is_slow(self, role: str) -> None:
        """Its app has had its time to take the ports it wants."""
        self._ready.add(role)
        async with self._telling:
            # First the role itself: others are led to it only once it can be reached.
            for ready in [role, *sorted(self._ready - {role})]:
                await self._tell(ready)

    async def _tell(self, role: str) -> None:
        plan = self._context.plan
        others = ports_of_others(plan, role)
        ports = {port: other for port, other in others.items() if other in self._answering}
        own = plan.roles[role].port if role in self._answering and len(plan.roles) > 1 else None
        if (ports, own) == self._told.get(role, ({}, None)):
            return
        guest = self._context.engine.guest(self._context.session.session_id, role)
        refused = await guest.forward_ports(ports, own=own)
        self._told[role] = ports, own
        for port, why in refused.items():
            said = f"localhost:{port} is not {ports[port]} here" if port in ports else f"{role} is not open to others"
            await self._context.journal.say(f"{said}: {why}", role=role)
