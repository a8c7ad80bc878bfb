import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { isAtLeast, LEVELS } from "./level";

describe("isAtLeast", () => {
  it("takes the first word that names a level", () => {
    const levels = (text: string) => LEVELS.filter((level) => isAtLeast(text, level));
    expect(levels("INFO: no error so far")).toEqual(["debug", "info"]);
    expect(levels("\x1b[33mWARN\x1b[0m deprecated")).toEqual(["debug", "info", "warning"]);
    expect(levels("2026-11-30 12:00:00,123 [ERROR] app: failed")).toEqual([...LEVELS]);
    expect(levels("Traceback (most recent call last):")).toEqual([...LEVELS]);
    expect(levels("listening on port 8000, errors go to stderr")).toEqual([]);
    expect(levels(`${"x".repeat(120)} error`)).toEqual([]);
  });

  it("has the words of the service", () => {
    const source = readFileSync("../sandbox/domain/levels.py", "utf-8");
    const words = [...(source.split("WORDS: Final")[1]?.split("\n}")[0] ?? "").matchAll(/"(\w+)"/g)].map(
      (it) => it[1],
    );
    expect(readFileSync("src/log/level.ts", "utf-8").match(/"\w+"/g)).toEqual(
      expect.arrayContaining(words.map((word) => `"${word}"`)),
    );
    expect(words.length).toBeGreaterThan(15);
  });
});
