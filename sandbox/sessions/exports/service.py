"""Accepts OTLP records of sessions: checks the token, limits the rate, and hands them to the receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sandbox.access.signing import SignatureRefused, Signer
from sandbox.db.connection import Database
from sandbox.errors import SandboxError
from sandbox.records.otlp.intake import IntakeTimeout
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.receiver import Answer, Receiver, refusal
from sandbox.records.otlp.worker import TooManyRecords
from sandbox.sessions.exports import store
from sandbox.sessions.exports.rate_limit import RateLimit, RateLimits
from sandbox.telemetry.metrics.collectors import SESSION_EXPORTS

#: Longest that a request waits for earlier ones of its session. Exporters give up after ten seconds.
LOCK_SECONDS = 8.0


class ExportService:
    """Accepts OTLP bodies that come with a session's token (`Signer.sign_exports`).

    The records are stored as that session's and its user's.
    """

    def __init__(self, db: Database, signer: Signer, receiver: Receiver, *, records_per_minute: int) -> None:
        self._db = db
        self._signer = signer
        self._receiver = receiver
        self._limits = RateLimits(records_per_minute)

    async def owner(self, token: str) -> Owner:
        """The owner of records sent with this token. Raises SignatureRefused, also after the session has ended."""
        session_id, user_id = self._signer.read_exports(token)
        async with self._db.read() as conn:
            ended = await store.has_ended(conn, session_id)
        if ended:
            raise SignatureRefused("The session of this token is over.", hint="Send nothing for it any more.")
        return Owner(user_id, str(session_id))

    async def accept_from(
        self, source: store.Source, what: RecordKind, body: bytes, content_type: str, encoding: str, token: str
    ) -> Answer:
        """Accept what an app in this container has sent, if the token is its session's. Refusals are answers."""
        try:
            session_id, user_id = self._signer.read_exports(token)
            if session_id != source.session_id:
                raise SignatureRefused(
                    "This token is another session's.", hint="Leave OTEL_EXPORTER_OTLP_HEADERS as it is set."
                )
        except SandboxError as error:
            return _counted(what, refusal(error, content_type))
        return await self.accept(what, body, content_type, encoding, Owner(user_id, str(session_id)))

    async def accept(self, what: RecordKind, body: bytes, content_type: str, encoding: str, owner: Owner) -> Answer:
        """Store the records of a body, unless the session exceeds its rate limit. Refusals are answers.

        Requests of one session are handled one after the other.
        """
        try:
            limit = self._limits.of(UUID(owner.session_id))
            limit.check()
            async with _locked(limit):
                most = limit.admit(len(body))
                try:
                    answer = await self._receiver.take(what, body, content_type, encoding, owner, most)
                except TooManyRecords as error:
                    raise limit.exceeded(error.records) from error
                limit.charge(len(body), answer.records)
        except SandboxError as error:
            answer = refusal(error, content_type)
        return _counted(what, answer)


@asynccontextmanager
async def _locked(limit: RateLimit) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LOCK_SECONDS):
            await limit.lock.acquire()
    except TimeoutError:
        raise IntakeTimeout(
            "What the session sent before is not written yet.", hint="Send the same again after Retry-After seconds."
        ) from None
    try:
        yield
    finally:
        limit.lock.release()


def _counted(what: RecordKind, answer: Answer) -> Answer:
    SESSION_EXPORTS.labels(what, str(answer.status)).inc()
    return answer
