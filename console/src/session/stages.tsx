/** The stages of a launch with their state and duration. */
import { Text } from "@mantine/core";
import { useInterval } from "@mantine/hooks";
import { useState } from "react";
import { duration } from "../ui/time";
import type { Run, Stage } from "./launch";

const STATES = {
  waiting: "waiting",
  started: "running",
  completed: "done",
  failed: "failed",
  skipped: "skipped",
};
const SIGNS = { waiting: "○", started: "◔", completed: "✓", failed: "✕", skipped: "–" };

interface Props {
  run: Run;
  /** Durations in milliseconds of the latest earlier run that completed the stage. */
  usual: ReadonlyMap<string, number>;
  /** Show the output of a stage. */
  onChoose: (stage: string) => void;
}

export function Stages({ run, usual, onChoose }: Props) {
  return (
    <ol className="stages" aria-label="Launch stages">
      {run.stages.map((stage) => (
        <li
          key={stage.name}
          data-stage={stage.name}
          data-state={stage.state}
          aria-current={stage.state === "started" ? "step" : undefined}
        >
          <button type="button" onClick={() => onChoose(stage.name)} title={`Show the log of ${stage.name}`}>
            <span className="stage-name">
              <span aria-hidden="true">{SIGNS[stage.state]} </span>
              {stage.name}
            </span>
            <Text span size="xs">
              {STATES[stage.state]} <Took stage={stage} usual={usual.get(stage.name)} />
            </Text>
          </button>
        </li>
      ))}
    </ol>
  );
}

function Took({ stage, usual }: { stage: Stage; usual: number | undefined }) {
  const [now, setNow] = useState(Date.now);
  const isRunning = stage.state === "started" && stage.startedAt !== null;
  useInterval(() => setNow(Date.now()), 1000, { autoInvoke: isRunning });
  if (isRunning && stage.startedAt) {
    const sofar = Math.max(0, now - new Date(stage.startedAt).getTime());
    return `${duration(Math.floor(sofar / 1000) * 1000)}${usual ? `, usually ${duration(usual)}` : ""}`;
  }
  if (stage.durationMs === null || stage.state === "skipped") return "";
  return <span title={usual ? `usually ${duration(usual)}` : undefined}>{duration(stage.durationMs)}</span>;
}

/** The duration of each stage in the latest run before this one that completed it. */
export function usualDurations(runs: Run[], before: Run): Map<string, number> {
  const found = new Map<string, number>();
  for (const run of runs) {
    if (run === before) break;
    for (const { name, state, durationMs } of run.stages)
      if (state === "completed" && durationMs !== null) found.set(name, durationMs);
  }
  return found;
}
