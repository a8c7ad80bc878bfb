/** The files of a session in the API. */
import { json, request, type Schemas, sessionPath, succeeded } from "../api/client";

export interface FileInfo {
  path: string;
  type: "file" | "directory" | "symlink" | "other";
  size: number;
  mode: string;
  modified_at: string;
}

export function filesPath(id: string, role: string, path: string): string {
  return `${sessionPath(id)}/files?${new URLSearchParams({ role, path })}`;
}

/** A name below a folder as one path. */
export function joined(folder: string, name: string): string {
  return folder === "." ? name : `${folder}/${name}`;
}

/** The content of a folder: folders first, then by name. */
export async function listFolder(id: string, role: string, folder: string): Promise<FileInfo[]> {
  const { items } = await json<{ items: FileInfo[] }>(filesPath(id, role, folder));
  const isFile = (it: FileInfo) => Number(it.type !== "directory");
  return items.sort((a, b) => isFile(a) - isFile(b) || a.path.localeCompare(b.path));
}

export async function readFile(id: string, role: string, path: string): Promise<Uint8Array> {
  const response = await succeeded(await request(filesPath(id, role, path)));
  return new Uint8Array(await response.arrayBuffer());
}

export async function writeFile(
  id: string,
  role: string,
  path: string,
  content: BodyInit,
): Promise<FileInfo> {
  const headers = { "Content-Type": "application/octet-stream" };
  return json<FileInfo>(filesPath(id, role, path), { method: "PUT", body: content, headers });
}

export async function deleteFile(id: string, role: string, path: string): Promise<void> {
  await json<void>(filesPath(id, role, path), { method: "DELETE" });
}

/** Rename a file or folder; it is an error if the target exists. */
export async function rename(id: string, role: string, path: string, target: string): Promise<void> {
  const script =
    '[ ! -e "$1" ] || { echo "$1 exists already" >&2; exit 1; }; mkdir -p "$(dirname "$1")" && mv -- "$0" "$1"';
  const result = await json<Schemas["CommandResult"]>(`${sessionPath(id)}/exec`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ command: ["sh", "-c", script, path, target], role, timeout_seconds: 30 }),
  });
  if (result.exit_code !== 0) throw new Error(result.stderr.trim() || `mv failed with ${result.exit_code}`);
}
