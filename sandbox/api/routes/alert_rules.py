"""`/api/v1/alert-rules`: the rules by which alerts are opened automatically."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field, field_validator

from sandbox.api.http.auth import CurrentAdmin, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, ListQuery, LongText, Name, answer_page
from sandbox.api.http.services import Injected
from sandbox.api.routes.alerts import Severity
from sandbox.errors import NotFound
from sandbox.records.alert_rules import store

router = APIRouter(prefix="/api/v1/alert-rules", tags=["alerts"])

RuleName = Annotated[Name, Path(min_length=1, max_length=100)]
Comparison = Literal[">", ">=", "<", "<="]


class Rule(Body):
    """Opens an alert for each subject whose measure satisfies the comparison with the threshold for `for_seconds`.

    The alert is resolved automatically when the comparison has been false for `resolve_seconds`, or when the rule is
    disabled or removed.
    """

    description: LongText = ""
    measure: str = Field(max_length=100, description=f"One of {', '.join([*store.MEASURES, *store.GAUGES])}")
    comparison: Comparison = ">="
    threshold: float = Field(allow_inf_nan=False)
    window_seconds: int = Field(300, ge=10, le=2_592_000, description="The period that is measured, ending now")
    for_seconds: int = Field(
        0, ge=0, le=86_400, description="How long the comparison must hold before an alert is opened"
    )
    resolve_seconds: int = Field(
        60,
        ge=0,
        le=86_400,
        description="How long the comparison must be false before the alert is resolved, so that flapping is one alert",
    )
    severity: Severity = "warning"
    is_enabled: bool = True

    @field_validator("measure")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in store.MEASURES and value not in store.GAUGES:
            raise ValueError(f"is not one of {', '.join([*store.MEASURES, *store.GAUGES])}")
        return value


class RuleView(Rule):
    name: str
    created_at: datetime
    updated_at: datetime


@router.get("")
async def list_rules(_: CurrentCaller, services: Injected, query: Annotated[ListQuery, Query()]) -> Page[RuleView]:
    """Rules, newest first."""
    return Page.model_validate(await answer_page(store.RULES, services.db, query))


@router.get("/{name}")
async def get_rule(name: RuleName, _: CurrentCaller, services: Injected) -> RuleView:
    """One rule."""
    row = await store.RULES.one(services.db, {"name": name})
    if row is None:
        raise _not_found(name)
    return RuleView.model_validate(row)


@router.put("/{name}")
async def put_rule(name: RuleName, body: Rule, _: CurrentAdmin, services: Injected) -> RuleView:
    """Create or replace a rule (admin)."""
    return RuleView.model_validate(await store.put_rule(services.db, body.model_dump() | {"name": name}))


@router.delete("/{name}", status_code=204)
async def delete_rule(name: RuleName, _: CurrentAdmin, services: Injected) -> None:
    """Remove a rule (admin); its open alerts are resolved at the next evaluation."""
    if not await store.remove_rule(services.db, name):
        raise _not_found(name)


def _not_found(name: str) -> NotFound:
    return NotFound(f"There is no rule {name}.", code="alert_rule_not_found", hint="List: GET /api/v1/alert-rules.")
