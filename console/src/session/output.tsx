/** The output of the apps of a session: of all roles or some, one run at a time. */
import { NativeSelect } from "@mantine/core";
import { useMemo, useState } from "react";
import { type Session, sessionPath } from "../api/client";
import { type LogFilter, NO_FILTER } from "../log/line";
import { PagedLog } from "../log/paged";
import { linkedPlace, outputLog } from "../log/session";
import { useOpenedLog } from "../log/use";
import { LogViewer } from "../log/viewer";
import { reportConnection } from "../ui/connection";
import type { Run } from "./launch";

interface Props {
  session: Session;
  /** Oldest first. */
  runs: Run[];
}

export function OutputPanel({ session, runs }: Props) {
  const [chosenRun, setChosenRun] = useState("");
  const run = runs.some((it) => it.id === chosenRun) ? chosenRun : (runs.at(-1)?.id ?? "");
  if (!run) return null;
  return (
    <Output key={run} session={session} run={run}>
      {runs.length > 1 && (
        <NativeSelect
          size="xs"
          aria-label="Run"
          value={run}
          onChange={(event) => setChosenRun(event.currentTarget.value)}
          data={runs.map((it, index) => ({ value: it.id, label: `Run ${index + 1}` }))}
        />
      )}
    </Output>
  );
}

interface OutputProps {
  session: Session;
  run: string;
  children: React.ReactNode;
}

function Output({ session, run, children }: OutputProps) {
  const id = session.session_id;
  const roles = Object.keys(session.containers);
  const [filter, setFilter] = useState<LogFilter>(NO_FILTER);
  const names = roles.join(" ");
  const log = useMemo(() => {
    const onState = (state: string) => reportConnection(`output ${id}`, state === "interrupted");
    return new PagedLog(outputLog(id, names.split(" "), run, onState));
  }, [id, names, run]);
  useOpenedLog(log, filter, (hash) => {
    const linked = linkedPlace(hash);
    return linked?.role && roles.includes(linked.role) ? linked.place : null;
  });
  const query = new URLSearchParams({ source: "output", run });
  for (const role of filter.roles.length > 0 ? filter.roles : roles) query.append("role", role);
  return (
    <LogViewer
      log={log}
      label="Output"
      filter={filter}
      onFilter={setFilter}
      roles={roles}
      stages={[]}
      runs={[]}
      streams={["stdout", "stderr"]}
      downloadHref={`${sessionPath(id)}/lines/download?${query}`}
      empty="The app has not printed anything yet."
    >
      {children}
    </LogViewer>
  );
}
