/** Documents: the list, one document, and the search over their content. */
import { Button, Checkbox, Group, Text, Textarea, TextInput, Title } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useLocation } from "wouter";
import { caller } from "../api/caller";
import { api, json, type Schemas, sendJson, unwrap } from "../api/client";
import { FormDialog, RemoveButton } from "../ui/form";
import { listPath, PagedTable, useList } from "../ui/paged";
import { Empty, ErrorState, PageLoading } from "../ui/states";
import { Time } from "../ui/time";
import { Search } from "./filters";

export function Documents({ item }: { item: string }) {
  return item ? <WholeDocument id={item} /> : <DocumentList />;
}

function DocumentList() {
  const [text, setText] = useState("");
  const [isNew, setNew] = useState(false);
  return (
    <>
      <Group mb="sm" justify="space-between">
        <Search label="Search documents" value={text} onChange={setText} />
        <Button size="xs" variant="default" onClick={() => setNew(true)}>
          New document
        </Button>
      </Group>
      {isNew && <DocumentForm document={null} onClose={() => setNew(false)} />}
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

type Whole = Schemas["WholeDocument"];

function documentPath(id: string): string {
  return `/api/v1/documents/${id}`;
}

function WholeDocument({ id }: { id: string }) {
  const [isEdited, setEdited] = useState(false);
  const refresh = useRefresh();
  const [, go] = useLocation();
  const document = useQuery({
    queryKey: ["document", id],
    queryFn: () =>
      unwrap(api.GET("/api/v1/documents/{document_id}", { params: { path: { document_id: id } } })),
  });
  if (document.error) return <ErrorState error={document.error} />;
  if (!document.data) return <PageLoading />;
  const whole = document.data;
  const isOwn = caller.isAdmin || whole.user_id === caller.userId;
  return (
    <>
      <Link href="/platform/documents">All documents</Link>
      <Group justify="space-between" mt="sm">
        <Title order={2} size="h4">
          {whole.title}
        </Title>
        {isOwn && (
          <Group gap={4}>
            <Button size="compact-xs" variant="default" onClick={() => setEdited(true)}>
              Edit
            </Button>
            <RemoveButton
              what="this document"
              text="It cannot be searched any more."
              onRemove={async () => {
                await json<void>(documentPath(id), { method: "DELETE" });
                await refresh();
                go("/platform/documents");
              }}
            />
          </Group>
        )}
      </Group>
      <pre className="wrapped">{whole.content}</pre>
      {isEdited && <DocumentForm document={whole} onClose={() => setEdited(false)} />}
    </>
  );
}

/** Reads again what is shown of documents, and forgets what is not: a list would link to removed ones until it is read. */
function useRefresh(): () => Promise<unknown> {
  const queries = useQueryClient();
  return () =>
    Promise.all(
      [["list", "/api/v1/documents"], ["documents"], ["document"]].map((queryKey) => {
        queries.removeQueries({ queryKey, type: "inactive" });
        return queries.invalidateQueries({ queryKey });
      }),
    );
}

/** A new document, or, if there is one, its next version. */
function DocumentForm({ document, onClose }: { document: Whole | null; onClose: () => void }) {
  const refresh = useRefresh();
  const [, go] = useLocation();
  const [title, setTitle] = useState(document?.title ?? "");
  const [content, setContent] = useState(document?.content ?? "");
  const [source, setSource] = useState(document?.source ?? "");
  const [shared, setShared] = useState(document !== null && document.user_id === null);

  async function save(): Promise<void> {
    const kept = document ? { content_type: document.content_type, metadata: document.metadata } : {};
    const saved = await sendJson<Schemas["DocumentView"]>("POST", "/api/v1/documents", {
      ...kept,
      title,
      content,
      source: source.trim() || null,
      shared,
    });
    // A document with a source is replaced by one of the same source, any other only by its removal.
    if (document && document.document_id !== saved.document_id)
      await json<void>(documentPath(document.document_id), { method: "DELETE" });
    go(`/platform/documents/${saved.document_id}`);
    await refresh();
  }

  return (
    <FormDialog title={document ? "Edit the document" : "New document"} onClose={onClose} onSave={save}>
      <TextInput
        label="Title"
        required
        value={title}
        onChange={(event) => setTitle(event.currentTarget.value)}
      />
      <TextInput
        label="Source"
        description="Where it is from. A document of the same source is replaced."
        value={source}
        onChange={(event) => setSource(event.currentTarget.value)}
      />
      <Textarea
        label="Content"
        required
        autosize
        minRows={8}
        maxRows={20}
        value={content}
        onChange={(event) => setContent(event.currentTarget.value)}
      />
      {caller.isAdmin && (
        <Checkbox
          label="For all users"
          checked={shared}
          onChange={(event) => setShared(event.currentTarget.checked)}
        />
      )}
    </FormDialog>
  );
}
