"""Delivers alert changes to a webhook: signed, and retried with growing pauses until accepted or given up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time

import httpx

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.records.alerts import store

logger = logging.getLogger(__name__)

#: `t=<unix time>,v1=<hex HMAC-SHA256 of "<unix time>.<body>">`
SIGNATURE_HEADER = "X-Sandbox-Signature"
DELIVERY_HEADER = "X-Sandbox-Delivery"
MAX_ATTEMPTS = 15
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 2.0, 3600.0
TIMEOUT_SECONDS = 10.0
#: Deliveries read with one query, and requests sent at the same time.
_BATCH, _AT_ONCE = 50, 8


class Webhook:
    """Sends the deliveries queued in `alert_deliveries`. One may arrive twice, with the same delivery id."""

    def __init__(self, db: Database, url: str, secret: str) -> None:
        self._db = db
        self._url = url
        self._secret = secret

    async def deliver(self) -> None:
        """Send all deliveries that are due, those of one alert in order. Each failure doubles the next wait."""
        slots = asyncio.Semaphore(_AT_ONCE)
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as http:
            while due := await store.due_deliveries(self._db, _BATCH):
                async with asyncio.TaskGroup() as deliveries:
                    for delivery in due:
                        deliveries.create_task(self._deliver(http, delivery, slots))

    async def _deliver(self, http: httpx.AsyncClient, delivery: Row, slots: asyncio.Semaphore) -> None:
        body = json.dumps({"event": delivery["event"], "alert": delivery["payload"]}, ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            DELIVERY_HEADER: str(delivery["delivery_id"]),
            SIGNATURE_HEADER: sign(self._secret, body, int(time.time())),
        }
        try:
            # The body of the response is not read: it may be long or slow.
            async with (
                slots,
                asyncio.timeout(TIMEOUT_SECONDS),
                http.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                failure = None if answer.is_success else f"HTTP {answer.status_code}"
        except TimeoutError:
            failure = f"no answer in {TIMEOUT_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = str(error) or type(error).__name__
        if failure is None:
            await store.delivered(self._db, delivery["delivery_id"])
            return
        attempts = delivery["attempts"] + 1
        give_up = attempts >= MAX_ATTEMPTS
        wait = min(FIRST_WAIT_SECONDS * 2 ** (attempts - 1), MAX_WAIT_SECONDS)
        await store.not_delivered(self._db, delivery["delivery_id"], failure, wait, give_up=give_up)
        if give_up:
            logger.error(
                "the alert webhook did not accept delivery %d in %d attempts; the last failure: %s",
                delivery["delivery_id"],
                attempts,
                failure,
            )


def sign(secret: str, body: bytes, unix_time: int) -> str:
    """The value of `X-Sandbox-Signature`."""
    digest = hmac.new(secret.encode(), f"{unix_time}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={unix_time},v1={digest}"
