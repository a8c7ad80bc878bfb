"""Accepts OTLP records of sessions: checks the token, limits the rate, and hands them to the receiver."""

from __future__ import annotations

import asyncio
from uuid import UUID

from cachetools import TTLCache

from sandbox.access.signing import SignatureRefused, Signer
from sandbox.db.connection import Database
from sandbox.errors import Kind, SandboxError
from sandbox.records.otlp.intake import INTAKE_TIMEOUT
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.outcome import TOO_MANY_RECORDS, Outcome, Refused, Stored
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.receiver import Answer, Receiver, answer
from sandbox.secrets.environments import Environments
from sandbox.sessions.exports import store
from sandbox.sessions.exports.rate_limit import RateLimit, RateLimits
from sandbox.telemetry.metrics.collectors import SESSION_EXPORTS

#: Longest that a request waits for earlier ones of its session. Exporters give up after ten seconds.
LOCK_SECONDS = 8.0
#: How long the secrets of a session are known. They change when it is launched again.
SECRETS_SECONDS = 5.0
_LOCK_TIMED_OUT = Refused(
    INTAKE_TIMEOUT,
    Kind.UNAVAILABLE,
    "What the session sent before is not written yet.",
    "Send the same again after Retry-After seconds.",
)


class ExportService:
    """Accepts OTLP bodies that come with a session's token (`Signer.sign_exports`).

    The records are stored as that session's and its user's.
    """

    def __init__(
        self,
        db: Database,
        signer: Signer,
        receiver: Receiver,
        environments: Environments,
        *,
        records_per_minute: int,
    ) -> None:
        self._db = db
        self._environments = environments
        self._secrets: TTLCache[UUID, dict[str, str]] = TTLCache(4096, SECRETS_SECONDS)
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
        """Accept what an app in this container has sent, if the token is its session's."""
        try:
            session_id, user_id = self._signer.read_exports(token)
            if session_id != source.session_id:
                raise SignatureRefused(
                    "This token is another session's.", hint="Leave OTEL_EXPORTER_OTLP_HEADERS as it is set."
                )
        except SandboxError as error:
            return _answer(Refused.from_error(error), what, content_type)
        return await self.accept(what, body, content_type, encoding, Owner(user_id, str(session_id)))

    async def accept(self, what: RecordKind, body: bytes, content_type: str, encoding: str, owner: Owner) -> Answer:
        """Store the records of a body, unless the session exceeds its rate limit.

        Requests of one session are handled one after the other.
        """
        limit = self._limits.of(UUID(owner.session_id))
        outcome = limit.check() or await self._store_in_turn(limit, what, body, content_type, encoding, owner)
        return _answer(outcome, what, content_type)

    async def _store_in_turn(
        self, limit: RateLimit, what: RecordKind, body: bytes, content_type: str, encoding: str, owner: Owner
    ) -> Outcome:
        try:
            async with asyncio.timeout(LOCK_SECONDS):
                await limit.lock.acquire()
        except TimeoutError:
            return _LOCK_TIMED_OUT
        try:
            admitted = limit.admit(len(body))
            if isinstance(admitted, Refused):
                return admitted
            secrets = await self._secrets_of(UUID(owner.session_id))
            outcome = await self._receiver.accept(what, body, content_type, encoding, owner, admitted, secrets)
            if isinstance(outcome, Stored):
                limit.charge(len(body), outcome.records)
                return outcome
            return limit.exceeded(outcome.records) if outcome.code == TOO_MANY_RECORDS else outcome
        except SandboxError as error:
            return Refused.from_error(error)
        finally:
            limit.lock.release()

    async def _secrets_of(self, session_id: UUID) -> dict[str, str]:
        """The secrets of a session, which its apps may log. Raises DatabaseUnavailable and SealBroken."""
        found = self._secrets.get(session_id)
        if found is None:
            async with self._db.read() as conn:
                sealed = await store.sealed(conn, session_id)
            found = self._environments.values_of(session_id, sealed).secrets if sealed is not None else {}
            self._secrets[session_id] = found
        return found


def _answer(outcome: Outcome, what: RecordKind, content_type: str) -> Answer:
    given = answer(outcome, what, content_type)
    SESSION_EXPORTS.labels(what, str(given.status)).inc()
    return given
