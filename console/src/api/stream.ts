/**
 * Server-sent events over fetch, resumed after every interruption.
 *
 * EventSource is not enough: it gives up at the 503 of a restarting service, and it cannot send `Last-Event-ID` on a
 * new connection. A tab that is hidden for a while closes its streams, since a browser opens only six connections to
 * one host; it continues at the same event when it is shown again.
 */
import { Problem, request } from "./client";

export interface StreamEvent {
  id: string;
  type: string;
  data: string;
}

export type StreamState = "connecting" | "open" | "interrupted" | "over";

export interface StreamOptions {
  /** The id of the last event that the caller has. */
  after?: string | undefined;
  onEvents: (events: StreamEvent[]) => void;
  onState?: (state: StreamState) => void;
  /** The service refused the stream for good, for example because there is no such session. */
  onProblem?: (problem: Problem) => void;
  /** The stream ended as it should: by 204, or after an event of this type. */
  endsWith?: string;
}

const RETRY_MS = [250, 500, 1000, 2000];
const HIDDEN_MS = 60_000;

/** Splits text into server-sent events. Comments are dropped; an unfinished event waits for the rest. */
export class EventParser {
  private rest = "";
  private id = "";
  private type = "";
  private data: string[] = [];

  feed(text: string): StreamEvent[] {
    const events: StreamEvent[] = [];
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.line(line.endsWith("\r") ? line.slice(0, -1) : line, events);
    return events;
  }

  private line(line: string, events: StreamEvent[]): void {
    if (line === "") {
      if (this.data.length > 0 || this.id !== "")
        events.push({ id: this.id, type: this.type, data: this.data.join("\n") });
      this.id = this.type = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "id") this.id = value;
    else if (field === "event") this.type = value;
    else if (field === "data") this.data.push(value);
  }
}

/** Follow a stream until it is over. Returns a function that stops. */
export function follow(url: string, options: StreamOptions): () => void {
  const stop = new AbortController();
  let last = options.after;
  let connection: AbortController | null = null;
  let hiddenTimer = 0;

  function onVisibility(): void {
    window.clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = window.setTimeout(() => connection?.abort(), HIDDEN_MS);
  }

  /** An error of the receiver is a fault of the console, not of the connection. */
  function deliver(events: StreamEvent[]): void {
    try {
      options.onEvents(events);
    } catch (error) {
      reportError(error);
    }
  }

  async function connect(): Promise<boolean> {
    connection = new AbortController();
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (last) headers["Last-Event-ID"] = last;
    const response = await request(url, { headers, signal: connection.signal, cache: "no-store" });
    if (response.status === 204) return true;
    if (!response.ok || !response.body) {
      const problem = Problem.from(response.status, await response.json().catch(() => ({})));
      if (response.status < 500 && response.status !== 429) {
        options.onProblem?.(problem);
        return true;
      }
      throw problem;
    }
    options.onState?.("open");
    const parser = new EventParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = parser.feed(part.value);
      if (events.length === 0) continue;
      for (const event of events) if (event.id) last = event.id;
      if (stop.signal.aborted) return true;
      deliver(events.filter((event) => event.type !== ""));
      if (options.endsWith && events.some((event) => event.type === options.endsWith)) return true;
    }
    return false;
  }

  async function run(): Promise<void> {
    let failures = 0;
    options.onState?.("connecting");
    while (!stop.signal.aborted) {
      const before = last;
      try {
        if (await connect()) break;
      } catch {
        if (!stop.signal.aborted && !document.hidden) options.onState?.("interrupted");
      }
      failures = last === before ? failures + 1 : 0;
      await pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)] ?? 0, stop.signal);
      while (document.hidden && !stop.signal.aborted) await shownAgain(stop.signal);
    }
    if (!stop.signal.aborted) options.onState?.("over");
    document.removeEventListener("visibilitychange", onVisibility);
  }

  document.addEventListener("visibilitychange", onVisibility);
  void run();
  return () => {
    stop.abort();
    connection?.abort();
    window.clearTimeout(hiddenTimer);
    document.removeEventListener("visibilitychange", onVisibility);
  };
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = window.setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      window.clearTimeout(timer);
      resolve();
    });
  });
}

function shownAgain(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(), { once: true, signal });
    signal.addEventListener("abort", () => resolve());
  });
}
