"""`/api/v1/alerts`: open, acknowledge and resolve alerts; a receiver for Prometheus Alertmanager."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field, field_validator

from sandbox.api.http.auth import CurrentAdmin, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import (
    Body,
    JsonObject,
    LongText,
    Name,
    RecordId,
    TimedQuery,
    View,
    Writable,
    answer_page,
)
from sandbox.api.http.services import Injected, Services
from sandbox.errors import NotFound
from sandbox.records.alerts.alertmanager import Notice, apply_notices
from sandbox.records.alerts.store import ALERTS, Alerts

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"])

Severity = Literal["info", "warning", "error", "critical"]
Status = Literal["active", "acknowledged", "resolved"]
AlertId = Annotated[RecordId, Path()]
MAX_CAUSE = 500
Label = Annotated[str, Field(max_length=10_000), Writable]


class NewAlert(Body):
    severity: Severity
    title: Annotated[str, Field(min_length=1, max_length=200), Writable]
    message: LongText
    source: Name | None = None
    metadata: JsonObject | None = Field(
        None, description="With a `cause` (text) there is at most one open alert of that cause"
    )

    @field_validator("metadata")
    @classmethod
    def _cause_is_text(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        cause = (value or {}).get("cause")
        if cause is not None and (not isinstance(cause, str) or len(cause) > MAX_CAUSE):
            raise ValueError(f"cause is not a text of at most {MAX_CAUSE} characters")
        return value


class AlertView(View):
    alert_id: int
    timestamp: datetime
    severity: Severity
    title: str
    message: str
    source: str | None
    status: Status | None
    resolved_at: datetime | None
    metadata: dict[str, Any] | None


class AlertQuery(TimedQuery):
    severity: Severity | None = None
    status: Status | None = None
    source: Name | None = None


def alerts_of(services: Services) -> Alerts:
    return Alerts(notify=services.settings.alert_webhook_url is not None)


@router.get("")
async def list_alerts(_: CurrentCaller, services: Injected, query: Annotated[AlertQuery, Query()]) -> Page[AlertView]:
    """Alerts, newest first."""
    return Page.model_validate(await answer_page(ALERTS, services.db, query))


@router.get("/{alert_id}")
async def get_alert(alert_id: AlertId, _: CurrentCaller, services: Injected) -> AlertView:
    """One alert."""
    row = await ALERTS.one(services.db, {"alert_id": alert_id})
    if row is None:
        raise NotFound(f"There is no alert {alert_id}.", code="alert_not_found", hint="List them: GET /api/v1/alerts.")
    return AlertView.model_validate(row)


@router.post(
    "", status_code=201, responses={200: {"model": AlertView, "description": "An alert of this cause is open already"}}
)
async def open_alert(body: NewAlert, _: CurrentAdmin, services: Injected, response: Response) -> AlertView:
    """Open an alert (admin): 201, or 200 with the open alert of the same `metadata.cause`."""
    async with services.db.transaction() as connection:
        row, new = await alerts_of(services).open(connection, body.model_dump())
    response.status_code = 201 if new else 200
    return AlertView.model_validate(row)


class AlertmanagerAlert(BaseModel):
    """One alert as Alertmanager sends it. Fields that are not used are ignored."""

    status: Literal["firing", "resolved"]
    labels: dict[Label, Label] = Field(default_factory=dict, max_length=100)
    annotations: dict[Label, Label] = Field(default_factory=dict, max_length=100)
    fingerprint: Label = ""
    generatorURL: Label = ""
    startsAt: Label = ""


class AlertmanagerNotification(BaseModel):
    """The body of Alertmanager's webhook, version 4."""

    alerts: list[AlertmanagerAlert] = Field(max_length=1000)
    truncatedAlerts: int = Field(
        0, ge=0, description="Alerts left out because of `max_alerts` in Alertmanager's configuration"
    )


class AlertmanagerResult(View):
    opened: int
    resolved: int


@router.post("/alertmanager")
async def take_alertmanager(body: AlertmanagerNotification, _: CurrentAdmin, services: Injected) -> AlertmanagerResult:
    """A receiver for Prometheus Alertmanager's `webhook_configs` (admin; the token goes into `http_config`).

    The cause of an alert is its fingerprint: an alert that fires again is the open one, and an alert that Alertmanager
    resolves is resolved here, so leave `send_resolved` on. Leave `max_alerts` at 0, or alerts are missing here.
    """
    if body.truncatedAlerts:
        logger.warning("Alertmanager left %d alerts out of a notification: max_alerts", body.truncatedAlerts)
    notices = [
        Notice(
            alert.status == "firing",
            alert.labels,
            alert.annotations,
            alert.fingerprint,
            alert.generatorURL,
            alert.startsAt,
        )
        for alert in body.alerts
    ]
    opened, resolved = await apply_notices(services.db, alerts_of(services), notices)
    return AlertmanagerResult(opened=opened, resolved=resolved)


@router.post("/{alert_id}/acknowledge")
async def acknowledge_alert(alert_id: AlertId, caller: CurrentAdmin, services: Injected) -> AlertView:
    """Mark the alert as acknowledged (admin)."""
    async with services.db.transaction() as connection:
        row = await alerts_of(services).acknowledge(connection, alert_id, caller.user_id)
    return AlertView.model_validate(row)


@router.post("/{alert_id}/resolve")
async def resolve_alert(alert_id: AlertId, caller: CurrentAdmin, services: Injected) -> AlertView:
    """Resolve the alert (admin). If the condition of its rule still holds, a new alert is opened."""
    async with services.db.transaction() as connection:
        row = await alerts_of(services).resolve(connection, alert_id, caller.user_id)
    return AlertView.model_validate(row)
