/** The output of the apps of a session, one role and run at a time. */
import { Group, NativeSelect } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { type Session, sessionPath } from "../api/client";
import { OutputLog } from "../log/output";
import { NO_FILTER } from "../log/store";
import { LogViewer } from "../log/viewer";
import { reportConnection } from "../ui/connection";
import { ErrorState } from "../ui/states";
import type { Run } from "./launch";

const TYPING_MS = 300;

interface Props {
  session: Session;
  /** Oldest first. */
  runs: Run[];
}

/** The role and the position in a link to a line of output. */
export function linkedLine(hash: string): { role: string; position: number } | null {
  const found = /^#a-(.+)-(\d+)$/.exec(hash);
  return found?.[1] ? { role: found[1], position: Number(found[2]) } : null;
}

export function OutputPanel({ session, runs }: Props) {
  const roles = Object.keys(session.containers);
  const linked = linkedLine(location.hash);
  const [role, setRole] = useState(linked && roles.includes(linked.role) ? linked.role : (roles[0] ?? ""));
  const [chosenRun, setChosenRun] = useState("");
  const run = runs.some((it) => it.id === chosenRun) ? chosenRun : (runs.at(-1)?.id ?? "");
  return (
    <>
      <Group gap="xs" mb={6}>
        {roles.length > 1 && (
          <NativeSelect
            size="xs"
            aria-label="Role"
            data={roles}
            value={role}
            onChange={(event) => setRole(event.currentTarget.value)}
          />
        )}
        {runs.length > 1 && (
          <NativeSelect
            size="xs"
            aria-label="Run"
            value={run}
            onChange={(event) => setChosenRun(event.currentTarget.value)}
            data={runs.map((it, index) => ({ value: it.id, label: `Run ${index + 1}` }))}
          />
        )}
      </Group>
      {run && role && <Output key={`${role} ${run}`} session={session} role={role} run={run} />}
    </>
  );
}

function Output({ session, role, run }: { session: Session; role: string; run: string }) {
  const id = session.session_id;
  const name = `output ${id} ${role}`;
  const [filter, setFilter] = useState(NO_FILTER);
  const [settled] = useDebouncedValue(filter, TYPING_MS);
  const log = useMemo(
    () => new OutputLog(id, role, run, (state) => reportConnection(name, state === "interrupted")),
    [id, role, run, name],
  );
  useSyncExternalStore(log.subscribe, log.snapshot);
  const isFirst = useRef(true);
  useEffect(() => {
    const linked = isFirst.current ? linkedLine(location.hash) : null;
    isFirst.current = false;
    log.open(settled, linked?.role === role ? linked.position : null);
    return () => {
      log.close();
      reportConnection(name, false);
    };
  }, [log, settled, role, name]);
  return (
    <>
      <LogViewer
        store={log}
        pager={log}
        label="Output"
        filter={filter}
        onFilter={setFilter}
        roles={[]}
        stages={[]}
        runs={[]}
        downloadHref={`${sessionPath(id)}/lines/download?${new URLSearchParams({ source: "output", role, run })}`}
        empty="The app has not printed anything yet."
      />
      {log.error && <ErrorState error={log.error} onRetry={log.toEnd} />}
    </>
  );
}
