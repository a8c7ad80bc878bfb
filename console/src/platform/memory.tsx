/** The memory of agents: the entries of one namespace. */
import { Code, Group, TextInput } from "@mantine/core";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { Empty } from "../ui/states";
import { Time } from "../ui/time";
import { Search } from "./filters";

export function MemoryPage() {
  const [namespace, setNamespace] = useState("");
  const [typed, setTyped] = useState("");
  return (
    <>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setNamespace(typed.trim());
        }}
      >
        <TextInput
          size="xs"
          w={320}
          mb="sm"
          label="Namespace"
          description="Press Enter to open it"
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
        />
      </form>
      {namespace ? (
        <Entries key={namespace} namespace={namespace} />
      ) : (
        <Empty title="Choose a namespace">
          Agents keep their memory in namespaces, such as their own name.
        </Empty>
      )}
    </>
  );
}

function Entries({ namespace }: { namespace: string }) {
  const [text, setText] = useState("");
  const list = useList<Schemas["MemoryView"]>(`/api/v1/memory/${encodeURIComponent(namespace)}`, { q: text });
  return (
    <>
      <Group mb="sm">
        <Search label="Search memory" value={text} onChange={setText} />
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
        ]}
      />
    </>
  );
}
