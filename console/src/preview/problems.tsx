/**
 * What goes wrong in the preview, beside it: requests that the app answered with an error, errors in the app's output,
 * and what the page in the frame reports. A page of another origin cannot be looked into, so it reports by itself:
 *
 *   addEventListener("error", (event) => parent.postMessage({ type: "sandbox-error", message: event.message }, "*"));
 */
import { Text } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type RefObject, useEffect, useState } from "react";
import { json, type Schemas, type Session, sessionPath } from "../api/client";
import { plainText } from "../log/ansi";
import { Time } from "../ui/time";

const REFRESH_MS = 3000;
const SHOWN = 8;
const MAX_CHARACTERS = 500;
/** New errors that are read at once. */
const NEW_LINES = 500;

interface Reported {
  id: number;
  time: string;
  message: string;
}

interface Props {
  session: Session;
  frame: RefObject<HTMLIFrameElement | null>;
  origin: string;
}

export function PreviewProblems({ session, frame, origin }: Props) {
  const id = session.session_id;
  const reported = useReported(frame, origin);
  const requests = useQuery({
    queryKey: ["failed requests", id],
    queryFn: () => json<Schemas["FailedRequestList"]>(`${sessionPath(id)}/failed-requests`),
    refetchInterval: REFRESH_MS,
  });
  const roles = Object.keys(session.containers);
  const queries = useQueryClient();
  const outputKey = ["error lines", id, session.pipeline_run_id, roles];
  const output = useQuery({
    queryKey: outputKey,
    queryFn: () => withNewErrors(id, roles, queries.getQueryData(outputKey)),
    refetchInterval: REFRESH_MS,
  });
  const failed = requests.data?.items.slice(0, SHOWN) ?? [];
  const lines = output.data?.lines ?? [];
  const count = reported.length + failed.length + lines.length;
  return (
    <details className="preview-problems" open={count > 0 || undefined} data-testid="preview-problems">
      <summary>{count === 0 ? "No errors" : `Errors (${count})`}</summary>
      <ul aria-label="Errors of the preview">
        {reported.map(({ id: number, time, message }) => (
          <li key={`page ${number}`}>
            <Time value={time} /> page: {message}
          </li>
        ))}
        {failed.map(({ time, method, path, status }) => (
          <li key={`${time} ${method} ${path}`}>
            <Time value={time} /> {status} {method} {path}
          </li>
        ))}
        {lines.map((line) => (
          <li key={line.id}>
            <a href={`/sessions/${id}/output#${line.id}`}>{line.role}</a>: {plainText(line.text)}
          </li>
        ))}
      </ul>
      <Text size="xs" c="dimmed">
        {count === 0 &&
          "Failed requests, errors in the output, and what the page reports with postMessage are shown here. "}
        Failed requests are those of the last hour. They are not stored: after a restart of the service the
        list begins anew.
      </Text>
    </details>
  );
}

interface ErrorLines {
  lines: Schemas["LineView"][];
  /** The place up to which the output has been read. */
  end: string;
}

/** The last errors in the output. All of it is searched once, and from then on what is new. */
async function withNewErrors(
  id: string,
  roles: string[],
  before: ErrorLines | undefined,
): Promise<ErrorLines> {
  const limit = before ? NEW_LINES : SHOWN;
  const query = new URLSearchParams({ source: "output", level: "error", limit: String(limit) });
  for (const role of roles) query.append("role", role);
  if (before) query.set("after", before.end);
  const { items, end } = await json<Schemas["LinesPage"]>(`${sessionPath(id)}/lines?${query}`);
  return { lines: [...(before?.lines ?? []), ...items].slice(-SHOWN), end };
}

/** What the page in the frame has reported, newest first. Text only, whatever it sends. */
function useReported(frame: RefObject<HTMLIFrameElement | null>, origin: string): Reported[] {
  const [reported, setReported] = useState<Reported[]>([]);
  useEffect(() => {
    let count = 0;
    function onMessage({ data, origin: from, source }: MessageEvent): void {
      if (from !== origin || source !== frame.current?.contentWindow) return;
      const { type, message } = (data ?? {}) as { type?: unknown; message?: unknown };
      if (type !== "sandbox-error" || typeof message !== "string") return;
      const entry = {
        id: count++,
        time: new Date().toISOString(),
        message: message.slice(0, MAX_CHARACTERS),
      };
      setReported((before) => [entry, ...before].slice(0, SHOWN));
    }
    window.addEventListener("message", onMessage);
    return () => window.removeEventListener("message", onMessage);
  }, [frame, origin]);
  return reported;
}
