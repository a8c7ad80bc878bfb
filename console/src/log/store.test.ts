import { describe, expect, it, vi } from "vitest";
import { type Line, LineStore, NO_FILTER, passes } from "./store";

function line(number: number, more: Partial<Line> = {}): Line {
  const text = `line ${number}`;
  return {
    id: `l-${number}`,
    position: number,
    time: null,
    run: "r",
    role: "web",
    stage: "services",
    stream: "stdout",
    text,
    ...more,
  };
}

describe("LineStore", () => {
  it("shows a burst in one change", () => {
    const store = new LineStore();
    const changed = vi.fn();
    store.subscribe(changed);
    for (let number = 0; number < 1000; number++) store.append([line(number)]);
    store.flush();
    expect(changed).toHaveBeenCalledTimes(1);
    expect(store.lines).toHaveLength(1000);
  });

  it("drops the oldest lines and counts them", () => {
    const store = new LineStore(100);
    store.append(Array.from({ length: 30_000 }, (_, number) => line(number)));
    store.flush();
    expect(store.lines).toHaveLength(100);
    expect(store.lines.at(-1)?.text).toBe("line 29999");
    expect(store.dropped).toBe(29_900);
  });
});

describe("passes", () => {
  it("compares every part of the filter", () => {
    expect(passes(line(1), NO_FILTER)).toBe(true);
    expect(passes(line(1), { ...NO_FILTER, text: "LINE 1" })).toBe(true);
    expect(passes(line(1), { ...NO_FILTER, stream: "stderr" })).toBe(false);
    expect(passes(line(1), { ...NO_FILTER, role: "web", stage: "services", run: "r" })).toBe(true);
    expect(passes(line(1), { ...NO_FILTER, run: "other" })).toBe(false);
  });
});
