import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Line, NO_FILTER, passes } from "./line";
import { launchLog, linkedPlace, outputLog } from "./session";

const RUN = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff";

/** Requests, as their addresses and `Last-Event-ID`. */
let asked: [URL, string | undefined][] = [];
let events = "";

beforeEach(() => {
  asked = [];
  vi.stubGlobal("fetch", async (input: string, init?: { headers?: Record<string, string> }) => {
    const url = new URL(input, "http://console");
    asked.push([url, init?.headers?.["Last-Event-ID"]]);
    if (!url.pathname.endsWith("/lines")) return new Response(events);
    return Response.json({
      items: [],
      older: false,
      newer: false,
      start: "web=0",
      end: "web=7",
      resume: null,
    });
  });
});

afterEach(() => vi.unstubAllGlobals());

function event(type: string, data: object): string {
  return `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
}

function printed(role: string, end: number, time: string, line: string): string {
  return event("log", { role, end, time, line, stream: "stdout" });
}

/** What comes after a place until the stream ends. */
async function followed(
  log: ReturnType<typeof launchLog>,
  place: string,
  filter = NO_FILTER,
): Promise<Line[]> {
  const lines: Line[] = [];
  await new Promise<void>((resolve) => {
    log.follow(place, filter, (more) => {
      lines.push(...more);
      resolve();
    });
  });
  return lines;
}

describe("the output of several roles", () => {
  it("is read of the chosen roles, else of all", async () => {
    const log = outputLog("s", ["web", "api"], RUN, () => {});
    await log.read({ before: "web=3&api=4" }, { ...NO_FILTER, text: "x", level: "error" });
    await log.read({}, { ...NO_FILTER, roles: ["api"] });
    const [first, second] = asked.map(([{ searchParams }]) => searchParams);
    expect(first?.getAll("role")).toEqual(["web", "api"]);
    expect([first?.get("before"), first?.get("q"), first?.get("level")]).toEqual([
      "web=3&api=4",
      "x",
      "error",
    ]);
    expect(second?.getAll("role")).toEqual(["api"]);
  });

  it("is followed from a place, by time, and no line is shown twice", async () => {
    events =
      printed("web", 20, "2026-01-01T00:00:02Z", "second") +
      printed("web", 10, "2026-01-01T00:00:00Z", "was shown") +
      printed("api", 9, "2026-01-01T00:00:01Z", "first") +
      event("end", {});
    const log = outputLog("s", ["web", "api"], RUN, () => {});
    const lines = await followed(log, "web=10&api=0");
    expect(lines.map(({ id, text }) => [id, text])).toEqual([
      ["a-api-9", "first"],
      ["a-web-20", "second"],
    ]);
    expect(asked[0]?.[1]).toBe("run=0f1e2d3c4b5a&web=10&api=0");
    expect(log.placeAfter("web=10&api=0", lines)).toBe("web=20&api=9");
  });
});

describe("the log of launches", () => {
  it("is followed from a seq, and filtered", async () => {
    const line = { run_id: "r", time: "t", role: "", stage: "plan", stream: "system" };
    events = event("stage", {}) + event("log", { ...line, seq: 8, line: "one" });
    events += event("log", { ...line, seq: 9, line: "two" });
    const log = launchLog("s", () => {});
    const lines = await followed(log, "seq=7", { ...NO_FILTER, text: "TWO" });
    expect(lines.map(({ id, role }) => [id, role])).toEqual([["l-9", null]]);
    expect(asked[0]?.[1]).toBe("7");
    expect(log.placeAfter("seq=7", lines)).toBe("seq=9");
  });
});

describe("a link to a line", () => {
  it("names a place, which ends with the line", () => {
    expect(linkedPlace("#l-12")).toEqual({ role: null, place: "seq=12" });
    expect(linkedPlace("#a-my-web-340")).toEqual({ role: "my-web", place: "my-web=340" });
    expect(linkedPlace("#main")).toBeNull();
  });
});

describe("passes", () => {
  it("compares every part of the filter", () => {
    const line: Line = {
      id: "l-1",
      position: 1,
      time: null,
      run: "r",
      role: "web",
      stage: "services",
      stream: "stdout",
      text: "line 1",
    };
    expect(passes(line, NO_FILTER)).toBe(true);
    expect(passes(line, { ...NO_FILTER, text: "LINE 1" })).toBe(true);
    expect(passes(line, { ...NO_FILTER, stream: "stderr" })).toBe(false);
    expect(passes(line, { ...NO_FILTER, roles: ["api", "web"], stage: "services", run: "r" })).toBe(true);
    expect(passes(line, { ...NO_FILTER, roles: ["api"] })).toBe(false);
    expect(passes(line, { ...NO_FILTER, run: "other" })).toBe(false);
  });
});
