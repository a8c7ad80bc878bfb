"""Records of sessions: whose they are, and how many are taken, whichever way they come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sandbox.access.signing import SignatureRefused, Signer
from sandbox.db.connection import Database
from sandbox.errors import SandboxError
from sandbox.records.otlp.intake import NotWrittenYet
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.receiver import Answer, Receiver, refusal
from sandbox.records.otlp.worker import TooManyRecords
from sandbox.sessions.exports import store
from sandbox.sessions.exports.allowance import Allowance, Allowances
from sandbox.telemetry.metrics.collectors import SESSION_EXPORTS

#: Longest that a request waits for those before it; exporters give up after ten.
TURN_SECONDS = 8.0


class ExportService:
    """Takes OTLP bodies with a session's token (`Signer.sign_exports`), as that session's and its user's records."""

    def __init__(self, db: Database, signer: Signer, receiver: Receiver, *, records_per_minute: int) -> None:
        self._db = db
        self._signer = signer
        self._receiver = receiver
        self._allowances = Allowances(records_per_minute)

    async def owner(self, token: str) -> Owner:
        """Whose records this token writes. Raises SignatureRefused, also once the session is over."""
        session_id, user_id = self._signer.read_exports(token)
        async with self._db.read() as conn:
            over = await store.is_over(conn, session_id)
        if over:
            raise SignatureRefused("The session of this token is over.", hint="Nothing reports for it any more.")
        return Owner(user_id, str(session_id))

    async def take_from(
        self, source: store.Source, what: RecordKind, body: bytes, content_type: str, encoding: str, token: str
    ) -> Answer:
        """Take what an app in this container has sent, if it has sent its session's token along."""
        try:
            session_id, user_id = self._signer.read_exports(token)
            if session_id != source.session_id:
                raise SignatureRefused(
                    "This token is another session's.", hint="Leave OTEL_EXPORTER_OTLP_HEADERS as it is set."
                )
        except SandboxError as error:
            return _counted(what, refusal(error, content_type))
        return await self.take(what, body, content_type, encoding, Owner(user_id, str(session_id)))

    async def take(self, what: RecordKind, body: bytes, content_type: str, encoding: str, owner: Owner) -> Answer:
        """Write the records of a body, no more of them than the session may send. Refusals are answers."""
        try:
            allowance = self._allowances.of(UUID(owner.session_id))
            allowance.check()
            async with _turn_of(allowance):
                most = allowance.admit(len(body))
                try:
                    answer = await self._receiver.take(what, body, content_type, encoding, owner, most)
                except TooManyRecords as error:
                    raise allowance.exceeded(error.records) from error
                allowance.charge(len(body), answer.records)
        except SandboxError as error:
            answer = refusal(error, content_type)
        return _counted(what, answer)


@asynccontextmanager
async def _turn_of(allowance: Allowance) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TURN_SECONDS):
            await allowance.turn.acquire()
    except TimeoutError:
        raise NotWrittenYet(
            "What the session sent before is not written yet.", hint="Send the same again after Retry-After seconds."
        ) from None
    try:
        yield
    finally:
        allowance.turn.release()


def _counted(what: RecordKind, answer: Answer) -> Answer:
    SESSION_EXPORTS.labels(what, str(answer.status)).inc()
    return answer
