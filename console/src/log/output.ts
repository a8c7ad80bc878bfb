/** The output of one role's app: the part around the reader is in memory, everything else is read when it is needed. */
import { json, type Schemas, sessionPath } from "../api/client";
import { follow, type StreamEvent, type StreamState } from "../api/stream";
import { type Line, LineStore, type LogFilter, NO_FILTER, type Pager, passes } from "./store";

type Page = Schemas["LinesPage"];

const PAGE = 1000;

export class OutputLog extends LineStore implements Pager {
  hasOlder = false;
  hasNewer = false;
  isLoading = false;
  error: Error | null = null;
  private filter: LogFilter = NO_FILTER;
  private stop: (() => void) | null = null;
  /** Rises with each new search, so that the answers to earlier ones are ignored. */
  private search = 0;

  constructor(
    private readonly sessionId: string,
    private readonly role: string,
    private readonly run: string,
    private readonly onState: (state: StreamState) => void,
    kept?: number,
  ) {
    super(kept);
  }

  /** Show the lines up to and with the one at a position, else the newest ones, and follow the output if it ends there. */
  open(filter: LogFilter, position: number | null = null): void {
    this.filter = filter;
    this.close();
    void this.load(position === null ? {} : { before: position + 1 }, (page, lines) => {
      this.hasOlder = page.older;
      // After the line of a link there is more to read, if only what comes from now on.
      this.hasNewer = position !== null;
      this.dropped = 0;
      this.replace(lines);
      if (!this.hasNewer) this.follow(page.resume);
    });
  }

  readonly loadOlder = (): void => {
    const first = this.lines[0];
    if (!this.hasOlder || !first || this.isLoading) return;
    void this.load({ before: first.position }, (page, lines) => {
      this.hasOlder = page.older;
      const all = [...lines, ...this.lines];
      if (all.length > this.kept) {
        all.length = this.kept;
        this.hasNewer = true;
        this.close();
      }
      this.replace(all);
    });
  };

  readonly loadNewer = (): void => {
    const last = this.lines.at(-1);
    if (!this.hasNewer || this.isLoading) return;
    void this.load({ after: last?.position ?? 0 }, (page, lines) => {
      this.hasNewer = page.newer;
      const all = [...this.lines, ...lines];
      if (all.length > this.kept) {
        all.splice(0, all.length - this.kept);
        this.hasOlder = true;
      }
      this.replace(all);
      if (!page.newer) this.follow(page.resume);
    });
  };

  readonly toEnd = (): void => this.open(this.filter);

  /** Stop following. */
  close(): void {
    this.search++;
    this.isLoading = false;
    this.stop?.();
    this.stop = null;
  }

  override flush(): void {
    const before = this.dropped;
    super.flush();
    if (this.dropped > before) this.hasOlder = true;
  }

  private async load(range: object, use: (page: Page, lines: Line[]) => void): Promise<void> {
    const search = this.search;
    this.isLoading = true;
    this.error = null;
    this.notify();
    const { text, stream, level } = this.filter;
    const query = new URLSearchParams({
      source: "output",
      role: this.role,
      run: this.run,
      limit: String(PAGE),
      q: text,
    });
    if (stream) query.set("stream", stream);
    if (level) query.set("level", level);
    for (const [name, value] of Object.entries(range)) query.set(name, String(value));
    try {
      const page = await json<Page>(`${sessionPath(this.sessionId)}/lines?${query}`);
      if (search !== this.search) return;
      this.isLoading = false;
      use(page, page.items.map(toLine));
    } catch (error) {
      if (search !== this.search) return;
      this.isLoading = false;
      this.error = error as Error;
      this.notify();
    }
  }

  private follow(resume: string | null | undefined): void {
    const path = `${sessionPath(this.sessionId)}/logs?follow=1&role=${encodeURIComponent(this.role)}`;
    let last = Number(new URLSearchParams(resume ?? "").get(this.role));
    this.stop = follow(path, {
      after: resume ?? undefined,
      endsWith: "end",
      onState: this.onState,
      onEvents: (events) => {
        const lines = events.filter(({ type }) => type === "log").map((event) => this.eventLine(event));
        // A line of the other stream may be sent again after an interruption.
        const fresh = lines.filter((line) => line.position > last);
        last = fresh.at(-1)?.position ?? last;
        this.append(fresh.filter((line) => passes(line, this.filter)));
      },
    });
  }

  private eventLine({ data }: StreamEvent): Line {
    const { role, stream, line, end } = JSON.parse(data) as {
      role: string;
      stream: string;
      line: string;
      end: number;
    };
    return {
      id: `a-${role}-${end}`,
      position: end,
      time: null,
      run: this.run,
      role,
      stage: null,
      stream,
      text: line,
    };
  }
}

function toLine({ id, position, run_id, time, role, stage, stream, text }: Schemas["LineView"]): Line {
  return { id, position, run: run_id, time, role, stage, stream, text };
}
