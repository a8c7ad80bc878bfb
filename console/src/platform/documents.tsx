/** Documents: the list, one document, and the search over their content. */
import { Group, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { api, json, type Schemas, unwrap } from "../api/client";
import { listPath, PagedTable, useList } from "../ui/paged";
import { Empty, ErrorState, PageLoading } from "../ui/states";
import { Time } from "../ui/time";
import { Search } from "./filters";

export function Documents({ item }: { item: string }) {
  return item ? <WholeDocument id={item} /> : <DocumentList />;
}

function DocumentList() {
  const [text, setText] = useState("");
  return (
    <>
      <Group mb="sm">
        <Search label="Search documents" value={text} onChange={setText} />
      </Group>
      {text ? <Found text={text} /> : <All />}
    </>
  );
}

function All() {
  const list = useList<Schemas["DocumentView"]>("/api/v1/documents");
  return (
    <PagedTable
      label="Documents"
      list={list}
      keyOf={(it) => it.document_id}
      emptyTitle="No documents"
      emptyText="They are posted to /api/v1/documents."
      columns={[
        {
          title: "Title",
          cell: (it) => <Link href={`/platform/documents/${it.document_id}`}>{it.title}</Link>,
        },
        { title: "Source", cell: (it) => it.source ?? "–" },
        { title: "Type", cell: (it) => it.content_type },
        { title: "Version", cell: (it) => it.version },
        { title: "Changed", cell: (it) => <Time value={it.updated_at} /> },
      ]}
    />
  );
}

function Found({ text }: { text: string }) {
  const found = useQuery({
    queryKey: ["documents", text],
    queryFn: () =>
      json<{ items: Schemas["ChunkView"][] }>(listPath("/api/v1/documents/search", { q: text, limit: 30 })),
  });
  if (found.error) return <ErrorState error={found.error} />;
  if (!found.data) return <PageLoading />;
  if (found.data.items.length === 0) return <Empty title="No document matches" />;
  return found.data.items.map((chunk) => (
    <section key={`${chunk.document_id} ${chunk.position}`} className="outcomes">
      <Link href={`/platform/documents/${chunk.document_id}`}>{chunk.title}</Link>
      {chunk.heading && (
        <Text size="sm" fw={600}>
          {chunk.heading}
        </Text>
      )}
      <Text size="sm" className="wrapped" lineClamp={4}>
        {chunk.content}
      </Text>
    </section>
  ));
}

function WholeDocument({ id }: { id: string }) {
  const document = useQuery({
    queryKey: ["document", id],
    queryFn: () =>
      unwrap(api.GET("/api/v1/documents/{document_id}", { params: { path: { document_id: id } } })),
  });
  if (document.error) return <ErrorState error={document.error} />;
  if (!document.data) return <PageLoading />;
  return (
    <>
      <Link href="/platform/documents">All documents</Link>
      <Title order={2} size="h4" mt="sm">
        {document.data.title}
      </Title>
      <pre className="wrapped">{document.data.content}</pre>
    </>
  );
}
