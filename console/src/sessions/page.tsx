/** The list of sessions: live, with search, filters, and ending several at once. */
import { Button, Checkbox, Group, SegmentedControl, Text, TextInput, Title } from "@mantine/core";
import { useHotkeys } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Link } from "wouter";
import { caller } from "../api/caller";
import { api, type Session, unwrap } from "../api/client";
import { useConfirm } from "../ui/confirm";
import { Empty, ErrorState, PageLoading } from "../ui/states";
import { Status } from "../ui/status";
import { type Column, DataTable } from "../ui/table";
import { Time } from "../ui/time";
import { usePageTitle } from "../ui/title";
import { merged, SESSIONS } from "./live";
import { sessionName } from "./names";

const PAGE = 100;
const STATUSES = ["all", "creating", "running", "ready", "error", "terminated"];

/** Whether a session is of a status and has a text in one of the fields that are shown. */
export function matches(session: Session, status: string, text: string): boolean {
  if (status !== "all" && session.status !== status) return false;
  const shown = [
    sessionName(session),
    session.session_id,
    session.user_id,
    session.status,
    session.error?.code,
  ];
  return shown.join(" ").toLowerCase().includes(text.trim().toLowerCase());
}

export function SessionsPage() {
  usePageTitle("Sessions");
  const queries = useQueryClient();
  const [cursor, setCursor] = useState<string | null>(null);
  const [text, setText] = useState("");
  const [status, setStatus] = useState("all");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const search = useRef<HTMLInputElement>(null);
  useHotkeys([["/", () => search.current?.focus()]]);

  async function readPage(after?: string): Promise<Session[]> {
    const query = { limit: PAGE, ...(after ? { cursor: after } : {}) };
    const page = await unwrap(api.GET("/api/v1/sessions", { params: { query } }));
    setCursor(page.next_cursor);
    return merged(queries.getQueryData<Session[]>(SESSIONS) ?? [], page.items);
  }

  const sessions = useQuery({
    queryKey: SESSIONS,
    queryFn: () => readPage(),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const older = useMutation({
    mutationFn: () => readPage(cursor ?? undefined),
    onSuccess: (all) => queries.setQueryData(SESSIONS, all),
  });
  const shown = (sessions.data ?? []).filter((session) => matches(session, status, text));
  const selected = shown.filter((session) => chosen.has(session.session_id));

  return (
    <>
      <Group justify="space-between" mb="md">
        <Title order={1} size="h3">
          Sessions
        </Title>
        <Button component={Link} href="/new">
          New session
        </Button>
      </Group>
      <Group mb="sm" gap="sm">
        <TextInput
          ref={search}
          type="search"
          aria-label="Search sessions"
          placeholder="Search by project, id or user"
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          w={280}
        />
        <SegmentedControl aria-label="Status" data={STATUSES} value={status} onChange={setStatus} size="xs" />
        {selected.length > 0 && <EndSelected sessions={selected} onDone={() => setChosen(new Set())} />}
      </Group>
      {sessions.error && !sessions.data && (
        <ErrorState error={sessions.error} onRetry={() => sessions.refetch()} />
      )}
      {sessions.isPending && <PageLoading />}
      {sessions.data && shown.length === 0 && (
        <Empty title={sessions.data.length === 0 ? "No sessions yet" : "No session matches"}>
          {sessions.data.length === 0 ? (
            <>
              Drop a folder at <Link href="/new">New session</Link>, or run <code>sandbox create PATH</code>.
            </>
          ) : (
            "Change the search or the status."
          )}
        </Empty>
      )}
      {shown.length > 0 && <SessionTable sessions={shown} chosen={chosen} onChoose={setChosen} />}
      {cursor && (
        <Button variant="default" mt="md" loading={older.isPending} onClick={() => older.mutate()}>
          Show older
        </Button>
      )}
      {older.error && <ErrorState error={older.error} />}
    </>
  );
}

interface TableProps {
  sessions: Session[];
  chosen: ReadonlySet<string>;
  onChoose: (chosen: ReadonlySet<string>) => void;
}

function SessionTable({ sessions, chosen, onChoose }: TableProps) {
  const living = sessions.filter((session) => session.status !== "terminated");
  const isAll = living.length > 0 && living.every((session) => chosen.has(session.session_id));

  function toggle(id: string): void {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    onChoose(next);
  }

  const columns: Column<Session>[] = [
    {
      title: "Choose",
      header: (
        <Checkbox
          aria-label="Choose all"
          checked={isAll}
          disabled={living.length === 0}
          onChange={() => onChoose(isAll ? new Set() : new Set(living.map((it) => it.session_id)))}
        />
      ),
      cell: (session) => (
        <Checkbox
          aria-label={`Choose ${sessionName(session)}`}
          checked={chosen.has(session.session_id)}
          disabled={session.status === "terminated"}
          onChange={() => toggle(session.session_id)}
        />
      ),
    },
    {
      title: "Session",
      cell: (session) => (
        <>
          <Link href={`/sessions/${session.session_id}`} className="row-link">
            {sessionName(session)}
          </Link>
          <Text size="xs" c="dimmed" ff="monospace">
            {session.session_id.slice(0, 8)}
          </Text>
        </>
      ),
    },
    {
      title: "Status",
      cell: (session) => (
        <>
          <Status value={session.status} />
          {session.error && <Text size="xs">{session.error.code}</Text>}
        </>
      ),
    },
    ...(caller.isAdmin ? [{ title: "User", cell: (session: Session) => session.user_id }] : []),
    { title: "Created", cell: (session) => <Time value={session.created_at} /> },
    { title: "Last active", cell: (session) => <Time value={session.last_active} /> },
    { title: "Ends", cell: (session) => <End session={session} /> },
  ];
  return <DataTable label="Sessions" items={sessions} columns={columns} keyOf={(it) => it.session_id} />;
}

function End({ session }: { session: Session }) {
  if (session.terminated_at)
    return (
      <>
        ended <Time value={session.terminated_at} />
      </>
    );
  return session.expires_at ? <Time value={session.expires_at} /> : "never";
}

function EndSelected({ sessions, onDone }: { sessions: Session[]; onDone: () => void }) {
  const { confirm, dialog } = useConfirm();
  const end = useMutation({
    mutationFn: async () => {
      const ids = sessions.map((session) => session.session_id);
      await Promise.all(
        ids.map((id) =>
          unwrap(api.DELETE("/api/v1/sessions/{session_id}", { params: { path: { session_id: id } } })),
        ),
      );
    },
    onSuccess: onDone,
  });
  const what = sessions.length === 1 ? "1 session" : `${sessions.length} sessions`;
  return (
    <>
      <Button
        color="red"
        variant="outline"
        size="xs"
        loading={end.isPending}
        onClick={async () => {
          if (await confirm(`End ${what}?`, "Containers and files of these sessions are removed.", "End"))
            end.mutate();
        }}
      >
        End {what}
      </Button>
      {end.error && <ErrorState error={end.error} />}
      {dialog}
    </>
  );
}
