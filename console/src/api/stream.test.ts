import { describe, expect, it } from "vitest";
import { EventParser } from "./stream";

describe("EventParser", () => {
  it("puts events together that arrive in pieces", () => {
    const parser = new EventParser();
    expect(parser.feed("id: 1\nevent: log\nda")).toEqual([]);
    expect(parser.feed('ta: {"a":1}\n')).toEqual([]);
    expect(parser.feed("\nid: 2\n")).toEqual([{ id: "1", type: "log", data: '{"a":1}' }]);
    expect(parser.feed("\n")).toEqual([{ id: "2", type: "", data: "" }]);
  });

  it("leaves out comments and takes lines that end in CR LF", () => {
    const parser = new EventParser();
    expect(parser.feed(": ping\r\n\r\nid: 7\r\nevent: end\r\ndata: a\r\ndata: b\r\n\r\n")).toEqual([
      { id: "7", type: "end", data: "a\nb" },
    ]);
  });
});
