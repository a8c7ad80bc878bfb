"""Query parameters and field types that the routes of records share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from sandbox.api.http.pages import MAX_LIMIT
from sandbox.db.connection import Database
from sandbox.db.cursors import decode_cursor, next_cursor
from sandbox.db.driver import to_utc
from sandbox.db.tables import Condition, Table

MAX_JSON = 65_536


def _writable(value: str) -> str:
    """Refuse text that PostgreSQL cannot store: NUL and lone surrogates."""
    if "\0" in value:
        raise ValueError("has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not Unicode text") from None
    return value


def writable_json(value: Any) -> Any:
    """Refuse JSON that PostgreSQL cannot store, and more than `MAX_JSON` bytes of it. Raises ValueError."""
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False)
        encoded.encode()
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if "\\u0000" in encoded:
        raise ValueError("has a NUL character")
    if len(encoded.encode()) > MAX_JSON:
        raise ValueError(f"has more than {MAX_JSON} bytes as JSON")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return to_utc(value)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None


Writable = AfterValidator(_writable)
#: A time; UTC if it has no zone.
Time = Annotated[datetime, AfterValidator(_utc)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100), Writable]
#: A runtime or a framework.
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=50), Writable]
#: The platform's id of a pipeline run, or a project's.
LongName = Annotated[str, StringConstraints(min_length=1, max_length=255), Writable]
Signature = Annotated[str, StringConstraints(min_length=1, max_length=300), Writable]
LongText = Annotated[str, StringConstraints(max_length=65_536), Writable]
JsonObject = Annotated[dict[str, Any], AfterValidator(writable_json)]
JsonValue = Annotated[Any, AfterValidator(writable_json)]
Int = Annotated[int, Field(ge=0, le=2**31 - 1)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
#: An id that is an INTEGER in the database.
RecordId = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Body(BaseModel):
    """A JSON body. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """A record in a response."""


class ListQuery(BaseModel):
    """The query parameters of every list."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Maximum number of items in a page")
    cursor: str | None = Field(None, max_length=500, description="`next_cursor` of the previous page")


class TimedQuery(ListQuery):
    """The query parameters of lists that can be restricted to a period."""

    since: Time | None = Field(None, alias="from", description="Not before this time")
    until: Time | None = Field(None, alias="to", description="Before this time")


_NOT_COLUMNS = frozenset({"limit", "cursor", "since", "until", "q"})


async def answer_page(
    table: Table,
    db: Database,
    query: ListQuery,
    *,
    where: Sequence[Condition] = (),
    equal: Mapping[str, Any] | None = None,
    besides: Collection[str] = (),
) -> dict[str, Any]:
    """The page that a query requests: each of its fields is a filter on the column of that name, except `besides`.

    `equal` has further filters, which take precedence over the query's.
    """
    filters = query.model_dump(exclude={*_NOT_COLUMNS, *besides}, exclude_none=True) | dict(equal or {})
    timed = query if isinstance(query, TimedQuery) else TimedQuery()
    rows = await table.page(
        db,
        query.limit,
        equal=filters,
        since=timed.since,
        until=timed.until,
        after=decode_cursor(query.cursor, str) if query.cursor is not None else None,
        where=where,
    )
    return {"items": rows, "next_cursor": next_cursor(rows, len(rows) if rows.cut else query.limit, table.cursor)}


TimedList = Annotated[TimedQuery, Query()]
