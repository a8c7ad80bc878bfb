"""Where a run comes from."""

from __future__ import annotations

from sandbox.sessions import store
from sandbox.telemetry import context
from sandbox.telemetry.tracing import current_ids, new_ids


def new_origin() -> store.RunOrigin:
    """The origin of a run: the current request and its trace, or a new trace outside of a request."""
    request_id, parent = context.current().request_id, current_ids()
    trace_id, span_id = new_ids()
    if parent:
        return store.RunOrigin(request_id, parent[0], parent[1], span_id)
    return store.RunOrigin(request_id, trace_id, None, span_id)
