import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { connectTerminal, type Screen } from "./connection";

/** A WebSocket that the test opens and closes, and whose messages it makes. */
class FakeSocket {
  static made: FakeSocket[] = [];
  static readonly OPEN = 1;
  static readonly CLOSED = 3;
  readyState = 0;
  sent: unknown[] = [];
  closedWith: unknown = "open";
  onopen = () => {};
  onmessage = (_: { data: unknown }) => {};
  onclose = (_: { code: number }) => {};

  constructor(readonly url: URL) {
    FakeSocket.made.push(this);
  }

  send(data: unknown): void {
    this.sent.push(data);
  }

  close(code?: number): void {
    this.closedWith = code;
  }

  begin(position: number): void {
    this.readyState = FakeSocket.OPEN;
    this.onopen();
    this.onmessage({ data: JSON.stringify({ position }) });
  }

  print(text: string): void {
    this.onmessage({ data: new TextEncoder().encode(text).buffer });
  }

  end(code: number): void {
    this.readyState = FakeSocket.CLOSED;
    this.onclose({ code });
  }
}

let shown = "";
let type: (text: string) => void = () => {};
const screen: Screen = {
  cols: 80,
  rows: 24,
  write: (data) => {
    shown += typeof data === "string" ? data : new TextDecoder().decode(data);
  },
  onData: (listener) => {
    type = listener;
    return { dispose: () => {} };
  },
  onResize: () => ({ dispose: () => {} }),
};

function latest(): FakeSocket {
  const socket = FakeSocket.made.at(-1);
  if (!socket) throw new Error("no connection was made");
  return socket;
}

function afterOf({ url }: FakeSocket): string | null {
  return url.searchParams.get("after");
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeSocket);
  FakeSocket.made = [];
  shown = "";
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("connectTerminal", () => {
  it("goes on after the bytes that were received", () => {
    connectTerminal(screen, "/api/v1/sessions/s/terminal?role=web&terminal=abcdefgh");
    latest().begin(0);
    latest().print("12345");
    latest().end(1006);
    expect(shown).toContain("disconnected");
    vi.runAllTimers();
    latest().end(1006);
    vi.runAllTimers();
    expect(FakeSocket.made.map(afterOf)).toEqual(["0", "5", "5"]);
    shown = "";
    latest().begin(5);
    latest().print("678");
    expect(shown).toMatch(/connected again\].*678/s);
    latest().end(1012);
    vi.runAllTimers();
    expect(afterOf(latest())).toBe("8");
  });

  it("says when the shell is another one, and when output is missing", () => {
    connectTerminal(screen, "/terminal");
    latest().begin(0);
    latest().print("12345");
    latest().end(1006);
    vi.runAllTimers();
    latest().begin(100);
    expect(shown).toContain("older output is not stored any more");
    latest().end(1006);
    vi.runAllTimers();
    expect(afterOf(latest())).toBe("100");
    latest().begin(0);
    expect(shown).toContain("in a new shell");
  });

  it("waits for Enter when the shell has ended or the terminal is open elsewhere", () => {
    connectTerminal(screen, "/terminal");
    latest().begin(0);
    latest().print("bye");
    latest().end(1000);
    vi.runAllTimers();
    expect(FakeSocket.made).toHaveLength(1);
    type("\r");
    expect(afterOf(latest())).toBe("0");
    latest().begin(0);
    latest().end(4000);
    vi.runAllTimers();
    expect(FakeSocket.made).toHaveLength(2);
    expect(shown).toContain("open in another window");
  });

  it("closes the shell only when it is asked to", () => {
    connectTerminal(screen, "/terminal").leave();
    expect(latest().closedWith).toBeUndefined();
    connectTerminal(screen, "/terminal").close();
    expect(latest().closedWith).toBe(1000);
    latest().end(1000);
    vi.runAllTimers();
    expect(FakeSocket.made).toHaveLength(2);
  });
});
