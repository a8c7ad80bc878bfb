/** Packs a folder for upload, without what git ignores and what an installation generates. */
import { Zip, ZipDeflate } from "fflate";
import createIgnore, { type Ignore } from "ignore";
import { EXCLUDED_NAMES } from "../files/excluded";

/** A file of a folder, with its path in it. */
export interface SourceFile {
  path: string;
  file: File;
}

export const MAX_BYTES = 64 * 1024 * 1024;
export const MAX_FILES = 20_000;

export class PackingFailed extends Error {
  constructor(
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }
}

/** The files of a dropped folder. Excluded folders are not read at all. */
export async function filesOfEntry(entry: FileSystemEntry): Promise<SourceFile[]> {
  const found: SourceFile[] = [];
  async function walk(current: FileSystemEntry, path: string): Promise<void> {
    if (found.length > MAX_FILES * 2) throw tooMany();
    if (current.isFile) {
      found.push({ path, file: await fileOf(current as FileSystemFileEntry) });
      return;
    }
    for (const inner of await entriesOf(current as FileSystemDirectoryEntry))
      if (!EXCLUDED_NAMES.has(inner.name)) await walk(inner, path ? `${path}/${inner.name}` : inner.name);
  }
  await walk(entry, "");
  return found;
}

/** The files of a folder that was chosen with a dialog, whose name is the first part of each path. */
export function filesOfInput(files: FileList): SourceFile[] {
  return [...files].map((file) => ({ path: file.webkitRelativePath.split("/").slice(1).join("/"), file }));
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

async function entriesOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  // A browser gives at most a hundred entries at once.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (some.length === 0) return all;
    all.push(...some);
  }
}

/** The files that are uploaded. As in git, the deepest .gitignore with a matching pattern decides. */
export async function wanted(files: SourceFile[]): Promise<SourceFile[]> {
  const rules = new Map<string, Ignore>();
  for (const { path, file } of files)
    if (path === ".gitignore" || path.endsWith("/.gitignore"))
      rules.set(
        path.slice(0, -".gitignore".length),
        createIgnore({ allowRelativePaths: true }).add(await file.text()),
      );
  const folders = [...rules.keys()].sort((a, b) => b.length - a.length);
  return files.filter(({ path }) => {
    const parts = path.split("/");
    if (parts.some((part) => EXCLUDED_NAMES.has(part))) return false;
    // A file in an ignored folder stays ignored, whatever a deeper rule says.
    return !parts.some((_, index) => {
      const isFile = index === parts.length - 1;
      const part = parts.slice(0, index + 1).join("/") + (isFile ? "" : "/");
      return isIgnored(part, folders, rules);
    });
  });
}

function isIgnored(path: string, folders: string[], rules: Map<string, Ignore>): boolean {
  for (const folder of folders) {
    const inner = path.slice(folder.length);
    if (!path.startsWith(folder) || inner === "") continue;
    const found = rules.get(folder)?.test(inner);
    if (found?.ignored) return true;
    if (found?.unignored) return false;
  }
  return false;
}

/** Pack files as a zip archive. `onProgress` gets the part that is done, from 0 to 1. Throws PackingFailed. */
export async function pack(files: SourceFile[], onProgress: (part: number) => void): Promise<Blob> {
  if (files.length === 0)
    throw new PackingFailed("The folder has no files to upload.", "Is everything ignored by .gitignore?");
  if (files.length > MAX_FILES) throw tooMany();
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  let failure: Error | null = null;
  const zip = new Zip((error, chunk) => {
    if (error) failure = error;
    chunks.push(chunk as Uint8Array<ArrayBuffer>);
    size += chunk.length;
  });
  for (const [index, { path, file }] of files.entries()) {
    const entry = new ZipDeflate(path, { level: 6 });
    zip.add(entry);
    entry.push(new Uint8Array(await file.arrayBuffer()), true);
    if (failure) throw failure;
    if (size > MAX_BYTES)
      throw new PackingFailed(
        `The packed folder is larger than ${MAX_BYTES / 1024 / 1024} MiB.`,
        "List files that are not source code in .gitignore.",
      );
    onProgress((index + 1) / files.length);
  }
  zip.end();
  return new Blob(chunks, { type: "application/zip" });
}

function tooMany(): PackingFailed {
  return new PackingFailed(
    `The folder has more than ${MAX_FILES} files to upload.`,
    "List files that are not source code in .gitignore.",
  );
}

/** The project id for a name of a folder or archive. */
export function projectId(name: string): string {
  const slug = name
    .toLowerCase()
    .replace(/\.(zip|tgz|tar\.gz)$/, "")
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 40);
  return slug || "project";
}
