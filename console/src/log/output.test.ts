import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OutputLog } from "./output";
import { NO_FILTER } from "./store";

/** The output that the pretended service has stored: lines of ten bytes each. */
let stored = 0;
/** Requests for pages, as their queries. */
let asked: string[] = [];

function page(url: URL): Response {
  const query = url.searchParams;
  asked.push(`${query.get("before") ?? ""}/${query.get("after") ?? ""}/${query.get("q")}`);
  const limit = Number(query.get("limit"));
  const ends = Array.from({ length: stored }, (_, index) => (index + 1) * 10);
  const after = query.get("after");
  const before = Number(query.get("before") ?? 1e9);
  const inRange =
    after === null ? ends.filter((end) => end < before) : ends.filter((end) => end > Number(after));
  const found = after === null ? inRange.slice(-limit) : inRange.slice(0, limit);
  const items = found.map((end) => ({
    id: `a-web-${end}`,
    position: end,
    run_id: "r",
    time: null,
    role: "web",
    stage: null,
    stream: "stdout",
    text: `line ${end}`,
  }));
  const more = inRange.length > found.length;
  const body = {
    items,
    older: after === null ? more : true,
    newer: after === null ? query.has("before") : more,
    resume: `run=r&web=${found.at(-1) ?? 0}`,
  };
  return Response.json(body);
}

/** Followed streams never say anything and never end. */
const follows: string[] = [];

beforeEach(() => {
  stored = 5000;
  asked = [];
  follows.length = 0;
  vi.stubGlobal("fetch", async (input: string, init?: { headers?: Record<string, string> }) => {
    const url = new URL(input, "http://console");
    if (url.pathname.endsWith("/lines")) return page(url);
    follows.push(init?.headers?.["Last-Event-ID"] ?? "");
    return new Promise<Response>(() => {});
  });
});

afterEach(() => vi.unstubAllGlobals());

async function loaded(log: OutputLog): Promise<void> {
  await vi.waitFor(() => expect(log.isLoading).toBe(false));
}

describe("OutputLog", () => {
  it("shows the newest lines, follows them, and reads older ones when asked", async () => {
    const log = new OutputLog("s", "web", "r", () => {});
    log.open(NO_FILTER);
    await loaded(log);
    expect([log.lines.length, log.lines.at(-1)?.position]).toEqual([1000, 50_000]);
    expect([log.hasOlder, log.hasNewer]).toEqual([true, false]);
    expect(follows).toEqual(["run=r&web=50000"]);
    log.loadOlder();
    log.loadOlder();
    await loaded(log);
    expect(log.lines.map((line) => line.position)).toEqual(
      Array.from({ length: 2000 }, (_, it) => (it + 3001) * 10),
    );
    expect(asked).toEqual(["//", "40010//"]);
    log.close();
  });

  it("opens at a linked line and reads on to the end", async () => {
    const log = new OutputLog("s", "web", "r", () => {});
    log.open(NO_FILTER, 20_000);
    await loaded(log);
    expect(log.lines.at(-1)?.id).toBe("a-web-20000");
    expect(log.hasNewer).toBe(true);
    expect(follows).toEqual([]);
    for (let page = 0; page < 3; page++) {
      log.loadNewer();
      await loaded(log);
    }
    expect([log.lines.length, log.lines.at(-1)?.position, log.hasNewer]).toEqual([4000, 50_000, false]);
    expect(follows).toEqual(["run=r&web=50000"]);
    log.close();
  });

  it("keeps a bounded number of lines in memory, in either direction", async () => {
    const log = new OutputLog("s", "web", "r", () => {}, 1500);
    log.open(NO_FILTER);
    await loaded(log);
    log.loadOlder();
    await loaded(log);
    expect([log.lines.length, log.lines[0]?.position, log.hasNewer]).toEqual([1500, 30_010, true]);
    log.loadNewer();
    await loaded(log);
    expect([log.lines.length, log.lines.at(-1)?.position, log.hasOlder]).toEqual([1500, 50_000, true]);
    log.close();
  });

  it("ignores the answer to an earlier search", async () => {
    const log = new OutputLog("s", "web", "r", () => {});
    log.open({ ...NO_FILTER, text: "a" });
    log.open({ ...NO_FILTER, text: "ab" });
    await loaded(log);
    expect(asked).toEqual(["//a", "//ab"]);
    expect(log.lines).toHaveLength(1000);
    log.close();
  });

  it("reports an error and can try again", async () => {
    const log = new OutputLog("s", "web", "r", () => {});
    vi.stubGlobal("fetch", async () =>
      Response.json({ code: "session_over", detail: "over" }, { status: 410 }),
    );
    log.open(NO_FILTER);
    await loaded(log);
    expect(log.error?.message).toBe("over");
  });
});
