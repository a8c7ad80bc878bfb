/** A line of a log, and what can be asked of it. */
import { isAtLeast, type Level } from "./level";

export interface Line {
  /** Identifies the line in links: `l-` and its seq for a launch, `a-`, its role and its position for output. */
  id: string;
  /** Orders the lines of a launch or of a role: the event's seq, or the offset after the line. */
  position: number;
  time: string | null;
  run: string;
  role: string | null;
  stage: string | null;
  stream: string;
  text: string;
}

export interface LogFilter {
  text: string;
  /** Lines of these roles; none stands for all. */
  roles: string[];
  stage: string | null;
  stream: string | null;
  run: string | null;
  /** This level or a more severe one. */
  level: Level | null;
}

export const NO_FILTER: LogFilter = {
  text: "",
  roles: [],
  stage: null,
  stream: null,
  run: null,
  level: null,
};

/** Whether a line is of what the filter names. The text is found in upper and lower case alike. */
export function passes(line: Line, filter: LogFilter): boolean {
  return (
    (filter.roles.length === 0 || filter.roles.includes(line.role ?? "")) &&
    (filter.stage === null || line.stage === filter.stage) &&
    (filter.stream === null || line.stream === filter.stream) &&
    (filter.run === null || line.run === filter.run) &&
    (filter.level === null || isAtLeast(line.text, filter.level)) &&
    (filter.text === "" || line.text.toLowerCase().includes(filter.text.toLowerCase()))
  );
}

export function isUnfiltered({ text, roles, ...others }: LogFilter): boolean {
  return text === "" && roles.length === 0 && Object.values(others).every((value) => value === null);
}
