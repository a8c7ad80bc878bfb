/** The log of the launches of a session. */
import { useEffect, useMemo } from "react";
import { type Session, sessionPath } from "../api/client";
import type { LogFilter } from "../log/line";
import { PagedLog } from "../log/paged";
import { launchLog, linkedPlace } from "../log/session";
import { useOpenedLog } from "../log/use";
import { LogViewer } from "../log/viewer";
import { reportConnection } from "../ui/connection";
import type { Run } from "./launch";

interface Props {
  session: Session;
  /** Oldest first. */
  runs: Run[];
  filter: LogFilter;
  onFilter: (filter: LogFilter) => void;
}

export function LaunchLog({ session, runs, filter, onFilter }: Props) {
  const id = session.session_id;
  const log = useMemo(
    () =>
      new PagedLog(launchLog(id, (state) => reportConnection(`launch log ${id}`, state === "interrupted"))),
    [id],
  );
  useOpenedLog(log, filter, (hash) => {
    const linked = linkedPlace(hash);
    return linked && linked.role === null ? linked.place : null;
  });
  const isLaunching = session.status === "creating";
  // The stream of a launch that is over has ended.
  useEffect(() => {
    if (isLaunching) log.refollow();
  }, [log, isLaunching]);
  return (
    <LogViewer
      log={log}
      label="Launch log"
      filter={filter}
      onFilter={onFilter}
      roles={Object.keys(session.containers)}
      stages={[...new Set(runs.flatMap((run) => run.stages.map((stage) => stage.name)))]}
      runs={runs.map((run, index) => ({
        id: run.id,
        label: `Run ${index + 1}, ${new Date(run.startedAt).toLocaleString()}`,
      }))}
      streams={["stdout", "stderr", "system"]}
      downloadHref={`${sessionPath(id)}/pipeline-log`}
      empty="The launch has not printed anything yet."
    />
  );
}
