/** What the page of a session follows: its row, and its launches. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { api, type Session, sessionPath, unwrap } from "../api/client";
import { follow } from "../api/stream";
import { sessionKey } from "../sessions/live";
import { reportConnection } from "../ui/connection";
import { type LaunchEvent, type Launches, NO_LAUNCHES, withEvent } from "./launch";

/** The link to the preview is valid for ten minutes, so the session is read again before. */
const REFRESH_MS = 4 * 60_000;

export function useSession(id: string) {
  return useQuery({
    queryKey: sessionKey(id),
    queryFn: () => unwrap(api.GET("/api/v1/sessions/{session_id}", { params: { path: { session_id: id } } })),
    refetchInterval: REFRESH_MS,
  });
}

/** The launches of a session. Their log is read by page (`log.tsx`). */
export function useLaunches(id: string, session: Session | undefined): Launches {
  const queries = useQueryClient();
  const [launches, setLaunches] = useState(NO_LAUNCHES);
  const seq = useRef(0);
  const [isOver, setOver] = useState(false);
  const isLaunching = session?.status === "creating";
  // A stream that has ended is opened again when there is another launch.
  const shouldFollow = !isOver || isLaunching;

  useEffect(() => {
    if (!shouldFollow) return;
    const name = `launch ${id}`;
    const stop = follow(`${sessionPath(id)}/events`, {
      after: seq.current > 0 ? String(seq.current) : undefined,
      onEvents: (received) => {
        const events = received.map(({ type, data }): LaunchEvent => ({ ...JSON.parse(data), type }));
        const fresh = events.filter((event) => event.seq > seq.current);
        seq.current = fresh.at(-1)?.seq ?? seq.current;
        const notable = fresh.filter((event) => event.type !== "log");
        setLaunches((before) => notable.reduce(withEvent, before));
        if (notable.length > 0) void queries.invalidateQueries({ queryKey: sessionKey(id) });
      },
      onState: (state) => {
        reportConnection(name, state === "interrupted");
        if (state === "over") setOver(true);
      },
    });
    return () => {
      stop();
      reportConnection(name, false);
    };
  }, [id, shouldFollow, queries]);

  // `isOver` becomes false only while a launch is under way, so that its end is seen anew.
  useEffect(() => {
    if (isLaunching) setOver(false);
  }, [isLaunching]);
  return launches;
}
