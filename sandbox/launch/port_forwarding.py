"""Forwards ports of each role's localhost to the apps of the other roles, so that `localhost:8000` reaches the back end
as it does on a developer's machine.

A role's own app has priority for the ports it listens on. Therefore a role gets its forwarded ports only once its own
app answers, or has had `PORT_CLAIM_GRACE_SECONDS` to open its ports (it may be waiting for another role). Ports are
forwarded only to apps that answer; until then they refuse connections. The target may listen on 127.0.0.1 only.

An app may open another port than the one that was detected. The other roles were started with the detected one, as
`{ROLE}_URL`, and may use it at localhost. So it leads to the app as well, beside the port that the app has opened.
"""

from __future__ import annotations

import asyncio

from sandbox.concurrency import for_each
from sandbox.launch.environment import ports_of_other_roles
from sandbox.launch.stage import StageContext

#: How long an app that does not answer may keep others' ports from being forwarded to its localhost.
PORT_CLAIM_GRACE_SECONDS = 5.0


async def stop_forwarding(context: StageContext) -> None:
    """Close all forwarded ports of the session, so that apps about to start find every port free."""
    session_id = context.session.session_id
    await for_each(context.plan.roles, lambda role: context.engine.guest(session_id, role).forward_ports({}))


class PortForwarding:
    """The forwarded ports of one session during one attempt at the health stage.

    Nothing is stored: another attempt sends the same configuration to the guest agents again. Not thread-safe.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        #: The session's plan with the ports on which the apps were found.
        self.plan = context.plan
        self._answering: set[str] = set()
        #: Roles that may get forwarded ports. A role that starts no app has no ports to claim first.
        self._ready = {role for role, plan in context.plan.roles.items() if not plan.start}
        #: The configuration last sent to each role's guest agent: forwarded ports, its own port open to others, and
        #: the port under which they expect it.
        self._sent: dict[str, tuple[dict[int, str], int | None, int | None]] = {}
        self._lock = asyncio.Lock()

    async def app_answers(self, role: str, port: int | None) -> None:
        """Record that the role's app answers, on this port if it has one: forward to it, and forward others' ports to
        its localhost."""
        if port is not None:
            self.plan = self.plan.with_port(role, port)
        self._answering.add(role)
        await self.allow(role)

    async def allow(self, role: str) -> None:
        """Let others' ports be forwarded to the role's localhost: its app has had the time to claim its own."""
        self._ready.add(role)
        async with self._lock:
            # First the role itself, so that others are forwarded to it only once it can be reached.
            for ready in [role, *sorted(self._ready - {role})]:
                await self._configure(ready)

    async def _configure(self, role: str) -> None:
        plan, detected = self.plan, self._context.plan
        others = ports_of_other_roles(plan, role, detected)
        ports = {port: other for port, other in others.items() if other in self._answering}
        own = plan.roles[role].port if role in self._answering and len(plan.roles) > 1 else None
        planned = detected.roles[role].port if own not in (None, detected.roles[role].port) else None
        if (ports, own, planned) == self._sent.get(role, ({}, None, None)):
            return
        guest = self._context.engine.guest(self._context.session.session_id, role)
        refused = await guest.forward_ports(ports, own=own, planned=planned)
        self._sent[role] = ports, own, planned
        for port, reason in refused.items():
            if port in ports:
                what = f"localhost:{port} is not forwarded to {ports[port]}"
            elif port == planned:
                what = f"{role} cannot be reached by the other roles on the detected port {port}"
            else:
                what = f"{role} cannot be reached by the other roles"
            await self._context.journal.log_line(f"{what}: {reason}", role=role)
