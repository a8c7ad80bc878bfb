/** The logs of a session: of its launches, and of what its apps print. */
import { json, type Schemas, sessionPath } from "../api/client";
import { follow, type StreamEvent, type StreamState } from "../api/stream";
import { listPath } from "../ui/paged";
import { type Line, type LogFilter, passes } from "./line";
import type { LogPage, LogSource } from "./paged";

const PAGE = 1000;

/** The log of all launches of a session. A place is `seq=` and the seq of the event before it. */
export function launchLog(id: string, onState: (state: StreamState) => void): LogSource {
  return {
    read: (range, filter) => readPage(id, { source: "launch", ...range }, filter.roles, filter.run, filter),
    follow: (place, filter, onLines) =>
      follow(`${sessionPath(id)}/events`, {
        after: new URLSearchParams(place).get("seq") ?? "0",
        onState,
        onEvents: (events) =>
          onLines(
            events
              .filter(({ type }) => type === "log")
              .map(launchLine)
              .filter((line) => passes(line, filter)),
          ),
      }),
    placeAfter: (place, lines) => {
      const last = lines.at(-1);
      return last ? `seq=${last.position}` : place;
    },
  };
}

/** The output of the apps of one run, ordered by time. A place has, for each role, the offset of the output before it. */
export function outputLog(
  id: string,
  roles: string[],
  run: string,
  onState: (state: StreamState) => void,
): LogSource {
  const chosen = (filter: LogFilter) => (filter.roles.length > 0 ? filter.roles : roles);
  return {
    read: (range, filter) => readPage(id, { source: "output", ...range }, chosen(filter), run, filter),
    follow: (place, filter, onLines) => {
      const path = `${sessionPath(id)}/logs?${new URLSearchParams([["follow", "1"], ...ofRoles(chosen(filter))])}`;
      const last = new Map([...new URLSearchParams(place)].map(([role, end]) => [role, Number(end)]));
      return follow(path, {
        after: `run=${run.replaceAll("-", "").slice(0, 12)}&${place}`,
        endsWith: "end",
        onState,
        onEvents: (events) => {
          // A line of the other stream may be sent again after an interruption.
          const lines = events
            .filter(({ type }) => type === "log")
            .map((event) => outputLine(event, run))
            .filter(({ role, position }) => position > (last.get(role ?? "") ?? 0));
          for (const { role, position } of lines) last.set(role ?? "", position);
          onLines(byTime(lines.filter((line) => passes(line, filter))));
        },
      });
    },
    placeAfter: (place, lines) => {
      const next = new URLSearchParams(place);
      for (const [role, end] of new Map(lines.map((line) => [line.role ?? "", line.position])))
        next.set(role, String(end));
      return String(next);
    },
  };
}

/** The place after the line that an address names, with the role that it is of; null if it names none. */
export function linkedPlace(hash: string): { role: string | null; place: string } | null {
  const launch = /^#l-(\d+)$/.exec(hash);
  if (launch) return { role: null, place: `seq=${launch[1]}` };
  const output = /^#a-(.+)-(\d+)$/.exec(hash);
  return output?.[1] ? { role: output[1], place: `${encodeURIComponent(output[1])}=${output[2]}` } : null;
}

/** The last lines of a failed stage: those on stderr, if there are any. */
export async function lastLines(id: string, run: string, stage: string, limit: number): Promise<Line[]> {
  for (const stream of ["stderr", "stdout"]) {
    const query = { source: "launch", run, stage, stream, limit };
    const { items } = await json<Schemas["LinesPage"]>(listPath(`${sessionPath(id)}/lines`, query));
    if (items.length > 0) return items.map(toLine);
  }
  return [];
}

async function readPage(
  id: string,
  range: { source: string; before?: string; after?: string },
  roles: string[],
  run: string | null,
  { text, stage, stream, level }: LogFilter,
): Promise<LogPage> {
  const path = listPath(`${sessionPath(id)}/lines`, {
    ...range,
    run,
    q: text,
    stage,
    stream,
    level,
    limit: PAGE,
  });
  const query = new URLSearchParams(ofRoles(roles));
  const { items, ...page } = await json<Schemas["LinesPage"]>(`${path}&${query}`);
  return { ...page, lines: items.map(toLine) };
}

function ofRoles(roles: string[]): [string, string][] {
  return roles.map((role) => ["role", role]);
}

function toLine({ run_id: run, ...line }: Schemas["LineView"]): Line {
  return { ...line, run };
}

function launchLine({ data }: StreamEvent): Line {
  const event = JSON.parse(data) as Record<
    "run_id" | "time" | "role" | "stage" | "stream" | "line",
    string
  > & {
    seq: number;
  };
  const { seq, run_id: run, time, role, stage, stream, line: text } = event;
  return { id: `l-${seq}`, position: seq, time, run, role: role || null, stage, stream, text };
}

function outputLine({ data }: StreamEvent, run: string): Line {
  const event = JSON.parse(data) as {
    role: string;
    stream: string;
    line: string;
    end: number;
    time: string | null;
  };
  const { role, stream, line: text, end, time } = event;
  return { id: `a-${role}-${end}`, position: end, time, run, role, stage: null, stream, text };
}

/** Lines of several roles arrive as they are read; each role's are in order already. */
function byTime(lines: Line[]): Line[] {
  return lines.sort((one, other) => (one.time ?? "").localeCompare(other.time ?? "", "en"));
}
