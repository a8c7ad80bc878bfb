import { describe, expect, it } from "vitest";
import { described } from "./events";
import { type LaunchEvent, NO_LAUNCHES, withEvent } from "./launch";
import { usualDurations } from "./stages";

let seq = 0;
function event(type: string, run: string, more: object = {}): LaunchEvent {
  return { type, seq: ++seq, run_id: run, time: "2026-01-01T00:00:00Z", ...more };
}

function stage(run: string, name: string, state: string, took?: number): LaunchEvent {
  return event("stage", run, {
    stage: name,
    state,
    total: 8,
    ...(took === undefined ? {} : { duration_ms: took }),
  });
}

describe("withEvent", () => {
  it("shows each stage of the newest run, and keeps the earlier one", () => {
    const events = [
      stage("a", "plan", "started"),
      stage("a", "plan", "completed", 120),
      event("problem", "a", { code: "install_failed", message: "m", hint: "h", stage: "dependencies" }),
      event("end", "a", { status: "error" }),
      stage("b", "plan", "started"),
    ];
    const { runs } = events.reduce(withEvent, NO_LAUNCHES);
    expect(runs.map((run) => [run.id, run.hasEnded, run.problem?.code])).toEqual([
      ["a", true, "install_failed"],
      ["b", false, undefined],
    ]);
    expect(runs[0]?.stages[0]).toMatchObject({ name: "plan", state: "completed", durationMs: 120 });
    expect(runs[1]?.stages.map((it) => it.state)).toEqual(["started", ...Array(7).fill("waiting")]);
    expect(runs[1] && usualDurations(runs, runs[1])).toEqual(new Map([["plan", 120]]));
  });

  it("ignores an event that comes twice", () => {
    const once = stage("c", "plan", "started");
    const launches = withEvent(NO_LAUNCHES, once);
    expect(withEvent(launches, once)).toBe(launches);
  });

  it("shows the stages that a blank session has", () => {
    const blank = event("stage", "d", { stage: "plan", state: "started", total: 4 });
    expect(withEvent(NO_LAUNCHES, blank).runs[0]?.stages).toHaveLength(4);
  });
});

describe("the list of events", () => {
  it("has every event of every run once, in words", () => {
    const events = [
      event("status", "e", { status: "creating", previous: null }),
      stage("e", "plan", "completed", 1200),
      event("problem", "e", { code: "app_exited", message: "it ended", hint: "", stage: "health" }),
      event("status", "f", { status: "running", previous: "creating" }),
      event("preview", "f", { role: "web", port: 3000, url: "u" }),
      event("end", "f", { status: "running" }),
    ];
    const { events: listed } = [...events, ...events].reduce(withEvent, NO_LAUNCHES);
    expect(listed.map(described)).toEqual([
      "creating",
      "plan completed after 1.2 s",
      "app_exited: it ended",
      "creating → running",
      "web answers on port 3000",
      "The run ended: running",
    ]);
  });
});
