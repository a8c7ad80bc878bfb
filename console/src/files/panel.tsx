/** The files of a session: a tree, an editor, and upload, download, rename and removal. */
import { Button, Group, NativeSelect, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { useSearch } from "wouter";
import type { Session } from "../api/client";
import { useConfirm } from "../ui/confirm";
import { Empty, ErrorState } from "../ui/states";
import { deleteFile, filesPath, joined, rename, writeFile } from "./api";
import { useAsk } from "./ask";
import { Editor } from "./editor";
import { Tree } from "./tree";

export default function FilesPanel({ session, isShown }: { session: Session; isShown: boolean }) {
  const roles = Object.keys(session.containers);
  const search = useSearch();
  const place = placeOf(search);
  const [role, setRole] = useState(place && roles.includes(place.role) ? place.role : (roles[0] ?? ""));
  const [chosen, setChosen] = useState<{ path: string; isFolder: boolean } | null>(
    place && { path: place.path, isFolder: false },
  );
  // A link to a place in a file may be followed while files are open already.
  useEffect(() => {
    const next = placeOf(search);
    if (!next) return;
    setRole(next.role);
    setChosen({ path: next.path, isFolder: false });
  }, [search]);
  if (roles.length === 0 || session.status === "terminated")
    return <Empty title="There are no files">They are shown while the session has containers.</Empty>;
  return (
    <>
      <Group gap="xs" mb={6}>
        {roles.length > 1 && (
          <NativeSelect
            size="xs"
            aria-label="Role"
            data={roles}
            value={role}
            onChange={(event) => {
              setRole(event.currentTarget.value);
              setChosen(null);
            }}
          />
        )}
        <FileActions id={session.session_id} role={role} chosen={chosen} onChoose={setChosen} />
      </Group>
      <div className="files">
        <nav className="files-tree" aria-label="Files">
          <Tree
            id={session.session_id}
            role={role}
            folder="."
            chosen={chosen?.path ?? ""}
            isShown={isShown}
            onChoose={setChosen}
          />
        </nav>
        <div className="files-editor">
          {chosen && !chosen.isFolder ? (
            <Editor
              key={`${role} ${chosen.path}`}
              id={session.session_id}
              role={role}
              path={chosen.path}
              isShown={isShown}
              line={chosen.path === place?.path ? place.line : 1}
            />
          ) : (
            <Empty title="No file is open">Choose a file on the left.</Empty>
          )}
        </div>
      </div>
    </>
  );
}

/** The place in a file that the address names. */
function placeOf(search: string): { role: string; path: string; line: number } | null {
  const query = new URLSearchParams(search);
  const [role, path] = [query.get("role"), query.get("path")];
  return role && path ? { role, path, line: Number(query.get("line")) || 1 } : null;
}

interface ActionsProps {
  id: string;
  role: string;
  chosen: { path: string; isFolder: boolean } | null;
  onChoose: (chosen: { path: string; isFolder: boolean } | null) => void;
}

function FileActions({ id, role, chosen, onChoose }: ActionsProps) {
  const queries = useQueryClient();
  const { confirm, dialog } = useConfirm();
  const { ask, dialog: question } = useAsk();
  const input = useRef<HTMLInputElement>(null);
  const folder = chosen === null ? "." : chosen.isFolder ? chosen.path : parentOf(chosen.path);
  const change = useMutation({
    mutationFn: (action: () => Promise<unknown>) => action(),
    onSettled: () => queries.invalidateQueries({ queryKey: ["files", id, role] }),
  });

  async function create(): Promise<void> {
    const name = await ask("New file", `Path, below ${folder}`, "");
    if (!name) return;
    const path = joined(folder, name);
    change.mutate(() => writeFile(id, role, path, ""), {
      onSuccess: () => onChoose({ path, isFolder: false }),
    });
  }

  async function move(path: string): Promise<void> {
    const target = await ask("Rename", "New path", path);
    if (!target || target === path) return;
    change.mutate(() => rename(id, role, path, target), { onSuccess: () => onChoose(null) });
  }

  async function remove(path: string): Promise<void> {
    if (await confirm(`Remove ${path}?`, "This cannot be undone.", "Remove"))
      change.mutate(() => deleteFile(id, role, path), { onSuccess: () => onChoose(null) });
  }

  return (
    <>
      <Button size="compact-xs" variant="default" onClick={create}>
        New file
      </Button>
      <Button
        size="compact-xs"
        variant="default"
        onClick={() => input.current?.click()}
        loading={change.isPending}
      >
        Upload
      </Button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label="Files to upload"
        onChange={({ currentTarget }) => {
          const files = [...(currentTarget.files ?? [])];
          currentTarget.value = "";
          change.mutate(async () => {
            for (const file of files) await writeFile(id, role, joined(folder, file.name), file);
          });
        }}
      />
      {chosen && (
        <>
          {!chosen.isFolder && (
            <Button
              size="compact-xs"
              variant="default"
              component="a"
              href={filesPath(id, role, chosen.path)}
              download={chosen.path.split("/").at(-1)}
            >
              Download file
            </Button>
          )}
          <Button size="compact-xs" variant="default" onClick={() => move(chosen.path)}>
            Rename
          </Button>
          <Button size="compact-xs" variant="outline" color="red" onClick={() => remove(chosen.path)}>
            Remove
          </Button>
          <Text size="xs" c="dimmed" ff="monospace">
            {chosen.path}
          </Text>
        </>
      )}
      {change.error && <ErrorState error={change.error} />}
      {dialog}
      {question}
    </>
  );
}

function parentOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : ".";
}
