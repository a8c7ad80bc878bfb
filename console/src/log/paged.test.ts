import { afterEach, describe, expect, it, vi } from "vitest";
import { type Line, NO_FILTER } from "./line";
import { PagedLog } from "./paged";

/** A log of numbered lines. A place is the number of lines before it. */
class Numbered {
  stored = 5000;
  /** Requests for pages, as their ranges and texts. */
  asked: string[] = [];
  followed: string[] = [];
  onLines: (lines: Line[]) => void = () => {};

  readonly read = async (range: { before?: string; after?: string }, { text }: { text: string }) => {
    this.asked.push(`${range.before ?? ""}/${range.after ?? ""}/${text}`);
    const start = range.after === undefined ? Math.max(0, this.before(range) - 1000) : Number(range.after);
    const end = range.after === undefined ? this.before(range) : Math.min(start + 1000, this.stored);
    return {
      lines: numbered(start, end),
      older: start > 0,
      newer: range.before !== undefined || end < this.stored,
      start: String(start),
      end: String(end),
    };
  };

  readonly follow = (place: string, _: unknown, onLines: (lines: Line[]) => void) => {
    this.followed.push(place);
    this.onLines = onLines;
    return () => this.followed.push("stopped");
  };

  readonly placeAfter = (place: string, lines: Line[]) => String(lines.at(-1)?.position ?? place);

  /** Print more lines. */
  print(count: number): void {
    this.stored += count;
    this.onLines(numbered(this.stored - count, this.stored));
  }

  private before(range: { before?: string }): number {
    return range.before === undefined ? this.stored : Number(range.before);
  }
}

/** Lines are numbered from 1; the position of a line is its number. */
function numbered(start: number, end: number): Line[] {
  return Array.from({ length: end - start }, (_, index) => ({
    id: `l-${start + index + 1}`,
    position: start + index + 1,
    time: null,
    run: "r",
    role: "web",
    stage: null,
    stream: "stdout",
    text: `line ${start + index + 1}`,
  }));
}

function range(log: PagedLog): (number | undefined)[] {
  return [log.lines[0]?.position, log.lines.at(-1)?.position, log.lines.length];
}

async function loaded(log: PagedLog): Promise<void> {
  await vi.waitFor(() => expect(log.isLoading).toBe(false));
}

afterEach(() => vi.useRealTimers());

describe("PagedLog", () => {
  it("shows the newest lines, follows them, and reads older ones when asked", async () => {
    const source = new Numbered();
    const log = new PagedLog(source);
    log.open(NO_FILTER);
    await loaded(log);
    expect(range(log)).toEqual([4001, 5000, 1000]);
    expect([log.hasOlder, log.hasNewer]).toEqual([true, false]);
    expect(source.followed).toEqual(["5000"]);
    log.loadOlder();
    log.loadOlder();
    await loaded(log);
    expect(range(log)).toEqual([3001, 5000, 2000]);
    expect(source.asked).toEqual(["//", "4000//"]);
  });

  it("opens at a linked line and reads on to the end", async () => {
    const source = new Numbered();
    const log = new PagedLog(source);
    log.open(NO_FILTER, "2000");
    await loaded(log);
    expect(log.lines.at(-1)?.position).toBe(2000);
    expect(log.hasNewer).toBe(true);
    expect(source.followed).toEqual([]);
    for (let page = 0; page < 3; page++) {
      log.loadNewer();
      await loaded(log);
    }
    expect(range(log)).toEqual([1001, 5000, 4000]);
    expect(log.hasNewer).toBe(false);
    expect(source.followed).toEqual(["5000"]);
  });

  it("keeps a bounded number of lines in memory, and no line is lost in either direction", async () => {
    const source = new Numbered();
    const log = new PagedLog(source, 2500);
    log.open(NO_FILTER);
    await loaded(log);
    for (let page = 0; page < 3; page++) {
      log.loadOlder();
      await loaded(log);
    }
    expect([range(log), log.hasNewer]).toEqual([[1001, 3000, 2000], true]);
    expect(source.followed.at(-1)).toBe("stopped");
    for (let page = 0; page < 2; page++) {
      log.loadNewer();
      await loaded(log);
    }
    expect([range(log), log.hasOlder]).toEqual([[3001, 5000, 2000], true]);
    expect(source.followed.at(-1)).toBe("5000");
  });

  it("shows a burst in one change, drops the oldest lines, and can read them again", async () => {
    const source = new Numbered();
    const log = new PagedLog(source, 2500);
    log.open(NO_FILTER);
    await loaded(log);
    vi.useFakeTimers();
    const changed = vi.fn();
    log.subscribe(changed);
    for (let line = 0; line < 2300; line++) source.print(1);
    expect(changed).not.toHaveBeenCalled();
    vi.advanceTimersByTime(100);
    expect(changed).toHaveBeenCalledTimes(1);
    vi.useRealTimers();
    expect([range(log), log.hasOlder]).toEqual([[5001, 7300, 2300], true]);
    log.loadOlder();
    await loaded(log);
    expect(source.asked.at(-1)).toBe("5000//");
    expect(log.lines[0]?.position).toBe(4001);
  });

  it("does not wait for a timer when more lines come than are kept", async () => {
    const source = new Numbered();
    const log = new PagedLog(source, 2500);
    log.open(NO_FILTER);
    await loaded(log);
    vi.useFakeTimers();
    source.print(30_000);
    expect(range(log)[1]).toBe(35_000);
    expect(log.lines.length).toBeLessThanOrEqual(2500);
  });

  it("ignores the answer to an earlier search", async () => {
    const source = new Numbered();
    const log = new PagedLog(source);
    log.open({ ...NO_FILTER, text: "a" });
    log.open({ ...NO_FILTER, text: "ab" });
    await loaded(log);
    expect(source.asked).toEqual(["//a", "//ab"]);
    expect(log.lines).toHaveLength(1000);
  });

  it("reports an error and can try again", async () => {
    const source = new Numbered();
    const log = new PagedLog({ ...source, read: () => Promise.reject(new Error("over")) });
    log.open(NO_FILTER);
    await loaded(log);
    expect(log.error?.message).toBe("over");
  });
});
