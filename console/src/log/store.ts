/** The lines of a log that are in memory: appended in batches, oldest dropped beyond a limit. */
import { isAtLeast, type Level } from "./level";

export interface Line {
  /** Identifies the line in links: `l-` and its seq for a launch, `a-`, its role and its position for output. */
  id: string;
  /** Orders the lines of a log: the event's seq, or the offset after the line. */
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
  role: string | null;
  stage: string | null;
  stream: string | null;
  run: string | null;
  /** This level or a more severe one. */
  level: Level | null;
}

export const NO_FILTER: LogFilter = {
  text: "",
  role: null,
  stage: null,
  stream: null,
  run: null,
  level: null,
};

/** Lines kept in memory. */
const KEPT = 50_000;
/** Dropped at once, so that not every new line moves all others. */
const DROPPED = 5_000;
const BATCH_MS = 60;

export class LineStore {
  /** Every change makes a new array, so that a component sees it. */
  lines: Line[] = [];
  /** Lines that were dropped from the start. */
  dropped = 0;
  private waiting: Line[] = [];
  private timer = 0;
  private version = 0;
  private readonly listeners = new Set<() => void>();

  constructor(protected readonly kept = KEPT) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Rises with each change. */
  readonly snapshot = (): number => this.version;

  append(lines: Line[]): void {
    if (lines.length === 0) return;
    for (const line of lines) this.waiting.push(line);
    // Beyond what is kept, lines that wait would be dropped anyway.
    if (this.waiting.length > this.kept + DROPPED) this.drop(this.waiting, this.waiting.length - this.kept);
    this.timer ||= window.setTimeout(() => this.flush(), BATCH_MS);
  }

  flush(): void {
    const all = this.lines.concat(this.waiting);
    if (all.length > this.kept + DROPPED) this.drop(all, all.length - this.kept);
    this.replace(all);
  }

  /** Show these lines instead, and none of those that wait. */
  protected replace(lines: Line[]): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.waiting = [];
    this.lines = lines;
    this.notify();
  }

  protected notify(): void {
    this.version++;
    for (const listener of this.listeners) listener();
  }

  private drop(lines: Line[], count: number): void {
    lines.splice(0, count);
    this.dropped += count;
  }
}

/** A log of which a part is in memory and the rest is read from the service, page by page in both directions. */
export interface Pager {
  readonly hasOlder: boolean;
  readonly hasNewer: boolean;
  readonly isLoading: boolean;
  readonly error: Error | null;
  loadOlder: () => void;
  loadNewer: () => void;
  /** Go to the newest lines and follow them. */
  toEnd: () => void;
}

/** Whether a line is of what the filter names. The text is found in upper and lower case alike. */
export function passes(line: Line, filter: LogFilter, wanted = filter.text.toLowerCase()): boolean {
  return (
    (filter.role === null || line.role === filter.role) &&
    (filter.stage === null || line.stage === filter.stage) &&
    (filter.stream === null || line.stream === filter.stream) &&
    (filter.run === null || line.run === filter.run) &&
    (filter.level === null || isAtLeast(line.text, filter.level)) &&
    (wanted === "" || line.text.toLowerCase().includes(wanted))
  );
}

export function isUnfiltered(filter: LogFilter): boolean {
  const { text, ...others } = filter;
  return text === "" && Object.values(others).every((value) => value === null);
}
