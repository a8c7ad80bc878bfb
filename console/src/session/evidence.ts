/** What the log says about a failed launch: the last lines of the failed stage, and the file that they name. */
import { plainText } from "../log/ansi";
import type { Line } from "../log/store";

const SHOWN = 12;

/** A place in a file of the workspace. */
export interface Place {
  role: string;
  path: string;
  line: number;
}

/** The last lines of a stage of a run, those on stderr if there are any. */
export function lastLines(lines: Line[], run: string, stage: string): Line[] {
  const ofStage = lines.filter(
    (line) => line.run === run && line.stage === stage && line.stream !== "system",
  );
  const errors = ofStage.filter((line) => line.stream === "stderr");
  return (errors.length > 0 ? errors : ofStage).slice(-SHOWN);
}

// Python's `File "x.py", line 3`, and `x.js:3` as most others write it.
const PLACES = [
  /File "([^"<>]+)", line (\d+)/,
  /(?:^|[\s(])((?:\/workspace\/|\.{0,2}\/)?[\w@./-]+\.[a-zA-Z]\w{0,4}):(\d+)/,
];
const NOT_OF_THE_PROJECT = /(^|\/)(node_modules|site-packages|\.venv|lib\/python|usr\/)/;

/** The last place in a file of the project that the lines name; null if they name none. */
export function placeIn(lines: Line[]): Place | null {
  for (const line of [...lines].reverse()) {
    for (const pattern of PLACES) {
      const [, path, number] = pattern.exec(plainText(line.text)) ?? [];
      if (!path || !number || !line.role || NOT_OF_THE_PROJECT.test(path)) continue;
      const inside = path.replace(/^\/workspace\//, "").replace(/^\.\//, "");
      if (!inside.startsWith("/") && !inside.startsWith(".."))
        return { role: line.role, path: inside, line: Number(number) };
    }
  }
  return null;
}
