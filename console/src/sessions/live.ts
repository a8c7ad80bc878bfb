/** The caller's sessions as they change: one stream for each tab, written into the cache of queries. */
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { api, type Session, unwrap } from "../api/client";
import { follow, type StreamEvent } from "../api/stream";
import { reportConnection } from "../ui/connection";

/** The cache's key of the list of sessions, newest first. */
export const SESSIONS = ["sessions"] as const;

export function sessionKey(id: string): readonly string[] {
  return ["session", id];
}

/** Follow the caller's sessions for as long as the component is shown. */
export function useLiveSessions(): void {
  const queries = useQueryClient();
  useEffect(() => {
    let isBeginning = true;
    return follow("/api/v1/sessions/events", {
      onEvents: (events) => {
        const changed = applyEvents(queries, events);
        if (isBeginning) void refreshEnded(queries, changed);
        isBeginning = false;
      },
      onState: (state) => {
        reportConnection("sessions", state === "interrupted");
        if (state === "open") isBeginning = true;
      },
    });
  }, [queries]);
}

/** Put changed sessions into the cache. Returns their ids. */
function applyEvents(queries: QueryClient, events: StreamEvent[]): Set<string> {
  const changed = new Map<string, Session>();
  const gone = new Set<string>();
  for (const { type, data } of events) {
    const body = JSON.parse(data) as Session;
    if (type === "session") changed.set(body.session_id, body);
    else if (type === "gone") gone.add(body.session_id);
  }
  const listed = queries.getQueryData<Session[]>(SESSIONS);
  // Before the list has been read, what came since would look like all of it.
  if (listed) queries.setQueryData(SESSIONS, merged(listed, [...changed.values()], gone));
  for (const session of changed.values()) queries.setQueryData(sessionKey(session.session_id), session);
  return new Set(changed.keys());
}

/** A stream begins with all living sessions: read those again that lived before it and are not among them. */
async function refreshEnded(queries: QueryClient, living: ReadonlySet<string>): Promise<void> {
  const listed = queries.getQueryData<Session[]>(SESSIONS) ?? [];
  const ended = listed.filter((it) => it.status !== "terminated" && !living.has(it.session_id));
  if (ended.length === 0) return;
  const read = await Promise.allSettled(
    ended.map(({ session_id }) =>
      unwrap(api.GET("/api/v1/sessions/{session_id}", { params: { path: { session_id } } })),
    ),
  );
  const found = read.flatMap((it) => (it.status === "fulfilled" ? [it.value] : []));
  queries.setQueryData<Session[]>(SESSIONS, (now) => merged(now ?? [], found));
}

/** A list of sessions, newest first, with some of them replaced, added or removed. */
export function merged(
  listed: Session[],
  changed: Session[],
  gone: ReadonlySet<string> = new Set(),
): Session[] {
  const byId = new Map(listed.map((session) => [session.session_id, session]));
  for (const session of changed) byId.set(session.session_id, session);
  for (const id of gone) byId.delete(id);
  return [...byId.values()].sort((a, b) => b.created_at.localeCompare(a.created_at));
}
