import { describe, expect, it } from "vitest";
import type { Line } from "../log/line";
import { placeIn } from "./evidence";

function lines(...texts: string[]): Line[] {
  return texts.map((text, position) => ({
    id: `l-${position}`,
    position,
    time: null,
    run: "r",
    role: "web",
    stage: "services",
    stream: "stderr",
    text,
  }));
}

describe("placeIn", () => {
  it("finds the place that a traceback ends in", () => {
    const traceback = [
      "Traceback (most recent call last):",
      '  File "/workspace/app/main.py", line 12, in <module>',
      '  File "/usr/local/lib/python3.12/site-packages/flask/app.py", line 99, in run',
      "ValueError: no",
    ];
    expect(placeIn(lines(...traceback))).toEqual({ role: "web", path: "app/main.py", line: 12 });
  });

  it("finds the place that Node.js names, through colours", () => {
    expect(placeIn(lines("\x1b[31m/workspace/src/server.js:7\x1b[0m", "SyntaxError"))).toMatchObject({
      path: "src/server.js",
      line: 7,
    });
    expect(placeIn(lines("    at run (/workspace/node_modules/m/index.js:1:2)"))).toBeNull();
  });

  it("takes no address and no path outside of the workspace for a place", () => {
    expect(
      placeIn(lines("listening on 127.0.0.1:8000", "see ../../etc/x.conf:3", "/etc/passwd.txt:1")),
    ).toBeNull();
  });
});
