/** The launches of a session, put together from its events. */

export type StageState = "waiting" | "started" | "completed" | "failed" | "skipped";

export interface Stage {
  name: string;
  state: StageState;
  startedAt: string | null;
  durationMs: number | null;
}

export interface LaunchProblem {
  code: string;
  message: string;
  hint: string;
  stage: string | null;
}

export interface Run {
  id: string;
  startedAt: string;
  stages: Stage[];
  problem: LaunchProblem | null;
  hasEnded: boolean;
}

/** All runs of a session, oldest first, up to the event `seq`. */
export interface Launches {
  seq: number;
  runs: Run[];
  /** All events but lines of output, oldest first. */
  events: LaunchEvent[];
}

export interface LaunchEvent {
  type: string;
  seq: number;
  run_id: string;
  time: string;
  [field: string]: unknown;
}

export const NO_LAUNCHES: Launches = { seq: 0, runs: [], events: [] };
const STAGES = [
  "plan",
  "network",
  "containers",
  "workspace",
  "dependencies",
  "services",
  "health",
  "preview",
];

/** The launches after one more event. An event that was there already changes nothing. */
export function withEvent(launches: Launches, event: LaunchEvent): Launches {
  if (event.seq <= launches.seq) return launches;
  const runs = [...launches.runs];
  let run = runs.at(-1);
  if (run?.id !== event.run_id) {
    const stages = STAGES.map(
      (name): Stage => ({ name, state: "waiting", startedAt: null, durationMs: null }),
    );
    run = { id: event.run_id, startedAt: event.time, stages, problem: null, hasEnded: false };
    runs.push(run);
  }
  runs[runs.length - 1] = changed(run, event);
  return { seq: event.seq, runs, events: [...launches.events, event] };
}

function changed(run: Run, event: LaunchEvent): Run {
  switch (event.type) {
    case "stage":
      return { ...run, stages: stagesAfter(run.stages, event) };
    case "problem":
      return { ...run, problem: event as unknown as LaunchProblem };
    case "end":
      return { ...run, hasEnded: true };
    default:
      return run;
  }
}

function stagesAfter(stages: Stage[], event: LaunchEvent): Stage[] {
  const {
    stage,
    state,
    total,
    duration_ms: took,
  } = event as unknown as {
    stage: string;
    state: StageState;
    total: number;
    duration_ms?: number;
  };
  return stages.slice(0, total || stages.length).map((it) =>
    it.name !== stage
      ? it
      : {
          name: stage,
          state,
          startedAt: state === "started" ? event.time : it.startedAt,
          durationMs: took ?? null,
        },
  );
}
