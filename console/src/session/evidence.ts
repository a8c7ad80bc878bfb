/** The place in a file of the project that the last lines of a failed launch name. */
import { plainText } from "../log/ansi";
import type { Line } from "../log/line";

/** A place in a file of the workspace. */
export interface Place {
  role: string;
  path: string;
  line: number;
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
