/** The memory of agents: namespaces, and the entries of one of them, which can be changed. */
import { Autocomplete, Button, Code, Group, JsonInput, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation } from "wouter";
import { json, type Schemas, sendJson } from "../api/client";
import { FormDialog, RemoveButton } from "../ui/form";
import { PagedTable, useList } from "../ui/paged";
import { Empty } from "../ui/states";
import { Time } from "../ui/time";
import { Search } from "./filters";

type Entry = Schemas["MemoryView"];

function namespacePath(namespace: string): string {
  return `/api/v1/memory/${encodeURIComponent(namespace)}`;
}

/** `item` is the namespace that the address names. */
export function MemoryPage({ item }: { item: string }) {
  const namespace = decodeURIComponent(item);
  const [typed, setTyped] = useState(namespace);
  const [, go] = useLocation();
  const namespaces = useList<Schemas["NamespaceView"]>("/api/v1/memory-namespaces");
  return (
    <>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          go(`/platform/memory/${encodeURIComponent(typed.trim())}`);
        }}
      >
        <Group align="end" gap="xs" mb="sm">
          <Autocomplete
            size="xs"
            w={320}
            label="Namespace"
            data={namespaces.items.map((it) => it.namespace)}
            value={typed}
            onChange={setTyped}
          />
          <Button size="xs" variant="default" type="submit">
            Open
          </Button>
        </Group>
      </form>
      {namespace ? (
        <Entries key={namespace} namespace={namespace} />
      ) : (
        <Empty title="Choose a namespace">
          Agents keep their memory in namespaces, such as their own name. A new one is made with its first
          entry.
        </Empty>
      )}
    </>
  );
}

function Entries({ namespace }: { namespace: string }) {
  const [text, setText] = useState("");
  const [edited, setEdited] = useState<Entry | "new" | null>(null);
  const path = namespacePath(namespace);
  const queries = useQueryClient();
  const list = useList<Entry>(path, { q: text });
  const refresh = () => queries.invalidateQueries({ queryKey: ["list", path] });
  return (
    <>
      <Group mb="sm" justify="space-between">
        <Search label="Search memory" value={text} onChange={setText} />
        <Button size="xs" variant="default" onClick={() => setEdited("new")}>
          New entry
        </Button>
      </Group>
      <PagedTable
        label="Memory"
        list={list}
        keyOf={(it) => it.key}
        emptyTitle="No entries"
        emptyText={`Nothing in ${namespace} matches.`}
        columns={[
          { title: "Key", cell: (it) => <code>{it.key}</code> },
          { title: "Value", cell: (it) => <Code block>{JSON.stringify(it.value, null, 2)}</Code> },
          { title: "Agent", cell: (it) => it.agent_name ?? "–" },
          { title: "Version", cell: (it) => it.version },
          { title: "Changed", cell: (it) => <Time value={it.updated_at} /> },
          {
            title: "Actions",
            cell: (it) => (
              <Group gap={4} wrap="nowrap">
                <Button
                  size="compact-xs"
                  variant="default"
                  aria-label={`Edit ${it.key}`}
                  onClick={() => setEdited(it)}
                >
                  Edit
                </Button>
                <RemoveButton
                  what={it.key}
                  text="Agents do not find it any more."
                  onRemove={() => json<void>(entryPath(path, it.key), { method: "DELETE" }).then(refresh)}
                />
              </Group>
            ),
          },
        ]}
      />
      {edited && (
        <EntryForm
          path={path}
          entry={edited === "new" ? null : edited}
          onSaved={refresh}
          onClose={() => setEdited(null)}
        />
      )}
    </>
  );
}

/** A key may contain slashes. */
function entryPath(path: string, key: string): string {
  return `${path}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

interface FormProps {
  path: string;
  /** The entry that is changed; null for a new one. */
  entry: Entry | null;
  onSaved: () => Promise<unknown>;
  onClose: () => void;
}

function secondsUntil(time: string): number {
  return Math.max(1, Math.round((new Date(time).getTime() - Date.now()) / 1000));
}

/** The version guards against overwriting what an agent has written meanwhile. */
function EntryForm({ path, entry, onSaved, onClose }: FormProps) {
  const [key, setKey] = useState(entry?.key ?? "");
  const [text, setText] = useState(entry ? JSON.stringify(entry.value, null, 2) : "");

  async function save(): Promise<void> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw new Error("The value is not JSON. Text is written in double quotes.");
    }
    const body = {
      value,
      agent_name: entry?.agent_name ?? null,
      if_version: entry?.version ?? 0,
      ttl_seconds: entry?.expires_at ? secondsUntil(entry.expires_at) : null,
    };
    await sendJson("PUT", entryPath(path, key.trim()), body);
    await onSaved();
  }

  return (
    <FormDialog title={entry ? `Entry ${entry.key}` : "New entry"} onClose={onClose} onSave={save}>
      <TextInput
        label="Key"
        required
        disabled={entry !== null}
        value={key}
        onChange={(event) => setKey(event.currentTarget.value)}
      />
      <JsonInput
        label="Value"
        description="JSON, of at most 64 KiB"
        required
        autosize
        minRows={4}
        maxRows={16}
        value={text}
        onChange={setText}
      />
    </FormDialog>
  );
}
