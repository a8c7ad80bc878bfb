import { afterEach, describe, expect, it, vi } from "vitest";
import { toEnv } from "./env";

afterEach(() => vi.unstubAllGlobals());

describe("toEnv", () => {
  it("stores what was typed as a secret, and refers to it", async () => {
    const stored: [string, string][] = [];
    vi.stubGlobal("fetch", async (path: string, init: { body: string }) => {
      stored.push([path, init.body]);
      return Response.json({});
    });
    const entries = [
      { key: 1, name: "PLAIN", value: "a", isSecret: false },
      { key: 2, name: "_TOKEN", value: "hidden", isSecret: true },
      { key: 3, name: "STORED", value: "", isSecret: true },
      { key: 4, name: "", value: "left out", isSecret: true },
    ];
    expect(await toEnv(entries, "shop")).toEqual({
      PLAIN: "a",
      _TOKEN: { from_secret: "TOKEN" },
      STORED: { from_secret: "STORED" },
    });
    expect(stored).toEqual([["/api/v1/secrets/TOKEN?project_id=shop", '{"value":"hidden"}']]);
    await toEnv(entries, null);
    expect(stored[1]?.[0]).toBe("/api/v1/secrets/TOKEN");
  });
});
