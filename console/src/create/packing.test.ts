import { readFileSync } from "node:fs";
import { unzipSync } from "fflate";
import { describe, expect, it } from "vitest";
import { EXCLUDED_NAMES } from "../files/excluded";
import { pack, projectId, type SourceFile, wanted } from "./packing";
import { changedRoles, type RolePlan, toToml } from "./plan";

function files(content: Record<string, string>): SourceFile[] {
  return Object.entries(content).map(([path, text]) => ({ path, file: new File([text], path) }));
}

describe("wanted", () => {
  it("leaves out what git ignores and what an installation generates", async () => {
    const all = files({
      ".gitignore": "*.log\nbuild/\n/only-here\n",
      "a.txt": "",
      "a.log": "",
      "build/out.js": "",
      "web/.gitignore": "!keep.log\n*.tmp\n",
      "web/keep.log": "",
      "web/x.tmp": "",
      "web/only-here": "",
      "only-here": "",
      "web/node_modules/m/index.js": "",
      ".git/config": "",
    });
    const kept = (await wanted(all)).map(({ path }) => path);
    expect(kept).toEqual([".gitignore", "a.txt", "web/.gitignore", "web/keep.log", "web/only-here"]);
  });

  it("leaves out the same names as the command line", () => {
    const source = readFileSync("../sandbox/client/packing.py", "utf-8");
    const list = source.split("EXCLUDED_NAMES = frozenset(")[1]?.split(")")[0] ?? "";
    expect([...list.matchAll(/"([^"]+)"/g)].map((match) => match[1]).sort()).toEqual(
      [...EXCLUDED_NAMES].sort(),
    );
  });
});

describe("pack", () => {
  it("makes a zip archive and reports progress", async () => {
    const parts: number[] = [];
    const archive = await pack(files({ "a/b.txt": "hello", "c.txt": "ü" }), (part) => parts.push(part));
    const unpacked = unzipSync(new Uint8Array(await archive.arrayBuffer()));
    expect(new TextDecoder().decode(unpacked["a/b.txt"])).toBe("hello");
    expect(new TextDecoder().decode(unpacked["c.txt"])).toBe("ü");
    expect(parts).toEqual([0.5, 1]);
  });

  it("refuses an empty folder", async () => {
    await expect(pack([], () => {})).rejects.toThrow("no files");
  });
});

describe("projectId", () => {
  it("is made of a name", () => {
    expect(projectId("My App (2).tar.gz")).toBe("my-app-2");
    expect(projectId("???")).toBe("project");
  });
});

describe("plan", () => {
  const role: RolePlan = {
    runtime: "node20",
    root: ".",
    install: null,
    start: 'say "hi"',
    port: 80,
    health: "/",
    env: { A: "1" },
    stated: [],
  };

  it("sends only what was changed", () => {
    expect(changedRoles({ web: role }, { web: { ...role } })).toBeNull();
    expect(changedRoles({ web: role }, { web: { ...role, port: 81 } })).toEqual({
      web: { ...role, port: 81 },
    });
    expect(changedRoles({ web: role, api: role }, { web: null, api: role })).toEqual({ web: null });
  });

  it("is written as sandbox.toml", () => {
    expect(toToml({ web: role, api: null })).toBe(
      '[web]\nruntime = "node20"\nroot = "."\nstart = "say \\"hi\\""\nport = 80\nhealth = "/"\nenv = { A = "1" }\n',
    );
  });
});
