import { describe, expect, it } from "vitest";
import { previewAddress, safeUrl } from "./address";

const signed = new URL("http://abc.preview.localhost:8660/?_sbx=token");

describe("previewAddress", () => {
  it("keeps the host and the signature, whatever is typed", () => {
    for (const path of [
      "/a?b=c",
      "//evil.example/a",
      "/\\evil.example",
      "https://evil.example/",
      "javascript:alert(1)",
    ])
      expect(new URL(previewAddress(signed, path, null)).host).toBe("abc.preview.localhost:8660");
    expect(previewAddress(signed, "/a?b=c#d", null)).toBe(
      "http://abc.preview.localhost:8660/a?b=c&_sbx=token#d",
    );
  });

  it("names another port in the host", () => {
    expect(previewAddress(signed, "/", 3000)).toBe("http://3000-abc.preview.localhost:8660/?_sbx=token");
  });
});

describe("safeUrl", () => {
  it("takes links of http and https only", () => {
    expect(safeUrl("javascript:alert(1)")).toBeNull();
    expect(safeUrl("data:text/html,x")).toBeNull();
    expect(safeUrl("no link")).toBeNull();
    expect(safeUrl(null)).toBeNull();
    expect(safeUrl("https://a.example/")?.host).toBe("a.example");
  });
});
