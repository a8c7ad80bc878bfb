/**
 * A log of which the part around the reader is in memory. Everything else is read when it is needed, page by page in both
 * directions; new lines are appended while the end of the log is in memory.
 */
import type { Line, LogFilter } from "./line";
import { NO_FILTER } from "./line";

/** Lines that follow each other, oldest first. `start` and `end` are the places before and after them in the log. */
export interface LogPage {
  lines: Line[];
  /** Whether there may be older and newer lines that match. */
  older: boolean;
  newer: boolean;
  start: string;
  end: string;
}

/** Where the lines of a log come from. Places are text that only the source reads. */
export interface LogSource {
  /** The newest lines, or those before or after a place. */
  read: (range: { before?: string; after?: string }, filter: LogFilter) => Promise<LogPage>;
  /** Pass on the matching lines after a place as they come. Returns a function that stops. */
  follow: (place: string, filter: LogFilter, onLines: (lines: Line[]) => void) => () => void;
  /** The place after lines that came while the log was followed, from the place before them. */
  placeAfter: (place: string, lines: Line[]) => string;
}

/** Lines kept in memory; beyond that, whole pages are dropped. */
const KEPT = 50_000;
/** Lines that came while the log is followed are put into pages of this size. */
const PAGE = 1000;
const BATCH_MS = 60;

export class PagedLog {
  /** Every change makes a new array, so that a component sees it. */
  lines: Line[] = [];
  hasOlder = false;
  hasNewer = false;
  isLoading = false;
  error: Error | null = null;
  private pages: Omit<LogPage, "older" | "newer">[] = [];
  private waiting: Line[] = [];
  private timer = 0;
  private filter: LogFilter = NO_FILTER;
  private stop: (() => void) | null = null;
  /** Rises with each new search, so that the answers to earlier ones are ignored. */
  private search = 0;
  private version = 0;
  private readonly listeners = new Set<() => void>();

  constructor(
    private readonly source: LogSource,
    private readonly kept = KEPT,
  ) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Rises with each change. */
  readonly snapshot = (): number => this.version;

  /** Show the lines before a place, else the newest ones, and follow the log if it ends there. */
  open(filter: LogFilter, place: string | null = null): void {
    this.filter = filter;
    this.close();
    this.pages = [];
    void this.load(place === null ? {} : { before: place }, (page) => {
      this.pages = [page];
      this.hasOlder = page.older;
      // After the line of a link there is more to read, if only what comes from now on.
      this.hasNewer = place !== null;
      if (!this.hasNewer) this.follow();
    });
  }

  readonly loadOlder = (): void => {
    const [first] = this.pages;
    if (!this.hasOlder || !first || this.isLoading) return;
    void this.load({ before: first.start }, (page) => {
      this.pages.unshift(page);
      this.hasOlder = page.older;
      while (this.count() > this.kept && this.pages.length > 1) {
        this.pages.pop();
        this.hasNewer = true;
      }
      if (this.hasNewer) this.close();
    });
  };

  readonly loadNewer = (): void => {
    const last = this.pages.at(-1);
    if (!this.hasNewer || !last || this.isLoading) return;
    void this.load({ after: last.end }, (page) => {
      this.pages.push(page);
      this.hasNewer = page.newer;
      this.dropOldest();
      if (!page.newer) this.follow();
    });
  };

  /** Go to the newest lines and follow them. */
  readonly toEnd = (): void => this.open(this.filter);

  /** Follow the log again, if it is followed: the source ended, and has more now. */
  refollow(): void {
    if (this.stop) this.follow();
  }

  /** Stop following. */
  close(): void {
    this.search++;
    this.isLoading = false;
    this.stop?.();
    this.stop = null;
    this.waiting = [];
  }

  private follow(): void {
    this.stop?.();
    this.flush();
    this.stop = this.source.follow(this.pages.at(-1)?.end ?? "", this.filter, (lines) => this.append(lines));
  }

  private append(lines: Line[]): void {
    if (lines.length === 0) return;
    for (const line of lines) this.waiting.push(line);
    // A hidden tab runs its timers seldom.
    if (this.waiting.length > this.kept) this.flush();
    else this.timer ||= window.setTimeout(() => this.flush(), BATCH_MS);
  }

  /** Put the lines that wait into pages. */
  private flush(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    while (this.waiting.length > 0) {
      let last = this.pages.at(-1);
      if (!last) break;
      if (last.lines.length >= PAGE) {
        last = { lines: [], start: last.end, end: last.end };
        this.pages.push(last);
      }
      const next = this.waiting.splice(0, PAGE - last.lines.length);
      last.end = this.source.placeAfter(last.end, next);
      last.lines = last.lines.concat(next);
    }
    this.dropOldest();
    this.notify();
  }

  private dropOldest(): void {
    while (this.count() > this.kept && this.pages.length > 1) {
      this.pages.shift();
      this.hasOlder = true;
    }
  }

  private count(): number {
    return this.pages.reduce((sum, page) => sum + page.lines.length, 0);
  }

  private async load(
    range: { before?: string; after?: string },
    use: (page: LogPage) => void,
  ): Promise<void> {
    const search = this.search;
    this.isLoading = true;
    this.error = null;
    this.notify();
    try {
      const page = await this.source.read(range, this.filter);
      if (search !== this.search) return;
      this.isLoading = false;
      use(page);
    } catch (error) {
      if (search !== this.search) return;
      this.isLoading = false;
      this.error = error as Error;
    }
    this.notify();
  }

  private notify(): void {
    this.lines = this.pages.flatMap((page) => page.lines);
    this.version++;
    for (const listener of this.listeners) listener();
  }
}
