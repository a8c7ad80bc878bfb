import { describe, expect, it } from "vitest";
import { ansiPieces, overwritten, plainText } from "./ansi";

describe("ansiPieces", () => {
  it("styles text until the style is reset", () => {
    expect(ansiPieces("a \x1b[1;31mred\x1b[0m b")).toEqual([
      { text: "a ", className: "" },
      { text: "red", className: "ansi-bold ansi-red" },
      { text: " b", className: "" },
    ]);
  });

  it("takes colours of 256 and of 24 bits", () => {
    const [first, second, third] = ansiPieces("\x1b[38;5;196ma\x1b[48;2;1;2;3mb\x1b[38;5;9mc");
    expect(first).toMatchObject({ text: "a", color: "#ff0000" });
    expect(second).toMatchObject({ text: "b", color: "#ff0000", background: "#010203" });
    expect(third).toMatchObject({ text: "c", className: "ansi-bright-red", background: "#010203" });
  });

  it("leaves out other sequences and control characters", () => {
    expect(plainText("\x1b[2K\x1b]0;title\x07a\x1b[1Gb\x00\x1b(Bc")).toBe("abc");
    expect(plainText("\x1b[31")).toBe("31");
  });

  it("never makes markup of text", () => {
    expect(ansiPieces("<b>x</b>")).toEqual([{ text: "<b>x</b>", className: "" }]);
  });
});

describe("overwritten", () => {
  it("shows what is left after carriage returns", () => {
    expect(overwritten("10%\r50%\r100%")).toBe("100%");
    expect(overwritten("done\r")).toBe("done");
    expect(overwritten("plain")).toBe("plain");
  });
});
