/** The page of a session: its launch, what went wrong, its preview, and its parts in tabs. */
import { Group, Tabs, Text, Title } from "@mantine/core";
import { Suspense, useState } from "react";
import { useLocation } from "wouter";
import { Problem, type Session } from "../api/client";
import { NO_FILTER } from "../log/line";
import { PreviewPanel } from "../preview/panel";
import { sessionName } from "../sessions/names";
import { lazyPart } from "../ui/lazy";
import { Empty, ErrorState, NotFound, PageLoading } from "../ui/states";
import { Status } from "../ui/status";
import { usePageTitle } from "../ui/title";
import { SessionActions } from "./actions";
import { useLaunches, useSession } from "./data";
import { Details } from "./details";
import { EventList } from "./events";
import { LaunchLog } from "./log";
import { Notices } from "./notices";
import { OutputPanel } from "./output";
import { ProblemPanel } from "./problem";
import { Stages, usualDurations } from "./stages";

const TerminalPanel = lazyPart(() => import("../terminal/panel"));
const FilesPanel = lazyPart(() => import("../files/panel"));
const UsagePanel = lazyPart(() => import("./usage"));
const LessonsPanel = lazyPart(() => import("./lessons"));

const PARTS: [string, string][] = [
  ["log", "Log"],
  ["output", "Output"],
  ["terminal", "Terminal"],
  ["files", "Files"],
  ["usage", "Usage"],
  ["events", "Events"],
  ["lessons", "Lessons"],
  ["details", "Details"],
];

export default function SessionPage({ id, part }: { id: string; part: string | undefined }) {
  const session = useSession(id);
  if (session.error && !session.data) {
    const isMissing = session.error instanceof Problem && [404, 422].includes(session.error.status);
    return isMissing ? (
      <NotFound what="session" />
    ) : (
      <ErrorState error={session.error} onRetry={() => session.refetch()} />
    );
  }
  if (!session.data) return <PageLoading />;
  return <Opened session={session.data} part={part ?? "log"} />;
}

function Opened({ session, part }: { session: Session; part: string }) {
  const id = session.session_id;
  const [, go] = useLocation();
  const launches = useLaunches(id, session);
  const [filter, setFilter] = useState(NO_FILTER);
  const [openedParts, setOpenedParts] = useState<ReadonlySet<string>>(new Set([part]));
  const name = sessionName(session);
  usePageTitle(name);
  const run = launches.runs.at(-1);
  const hasApps = session.status === "running" || session.status === "error";

  function show(next: string | null): void {
    if (!next) return;
    setOpenedParts(new Set([...openedParts, next]));
    go(`/sessions/${id}/${next}`);
  }

  // What was opened stays, so that a terminal or a half-edited file survives a look at another part.
  const isOpen = (name: string) => part === name || openedParts.has(name);

  return (
    <div className="session" data-session={id}>
      <Group justify="space-between" mb="xs" align="start">
        <Group gap="sm">
          <Title order={1} size="h3">
            {name}
          </Title>
          <span role="status" data-testid="session-status">
            <Status value={session.status} />
          </span>
          <Text size="xs" c="dimmed" ff="monospace">
            {id}
          </Text>
        </Group>
        <SessionActions session={session} />
      </Group>
      {run && (
        <Stages
          run={run}
          usual={usualDurations(launches.runs, run)}
          onChoose={(stage) => {
            setFilter({ ...NO_FILTER, stage, run: run.id });
            show("log");
          }}
        />
      )}
      <ProblemPanel session={session} run={run} onShow={show} />
      <Notices session={session} />
      <div className="session-columns">
        <Tabs value={part} onChange={show} keepMounted={false} className="session-parts">
          <Tabs.List>
            {PARTS.map(([value, label]) => (
              <Tabs.Tab key={value} value={value}>
                {label}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          <Tabs.Panel value="log" pt="xs">
            <LaunchLog session={session} runs={launches.runs} filter={filter} onFilter={setFilter} />
          </Tabs.Panel>
          <Tabs.Panel value="output" pt="xs">
            {hasApps ? (
              <OutputPanel session={session} runs={launches.runs} />
            ) : (
              <Empty title="No app is running">
                The output of the apps is shown once they have been started.
              </Empty>
            )}
          </Tabs.Panel>
          <Tabs.Panel value="events" pt="xs">
            <EventList launches={launches} />
          </Tabs.Panel>
          <Tabs.Panel value="details" pt="xs">
            <Details session={session} launches={launches} />
          </Tabs.Panel>
          <Suspense fallback={<PageLoading />}>
            <Tabs.Panel value="usage" pt="xs">
              <UsagePanel session={session} />
            </Tabs.Panel>
            <Tabs.Panel value="lessons" pt="xs">
              <LessonsPanel session={session} />
            </Tabs.Panel>
            {isOpen("terminal") && (
              <Tabs.Panel value="terminal" pt="xs" keepMounted>
                <TerminalPanel session={session} isShown={part === "terminal"} />
              </Tabs.Panel>
            )}
            {isOpen("files") && (
              <Tabs.Panel value="files" pt="xs" keepMounted>
                <FilesPanel session={session} isShown={part === "files"} />
              </Tabs.Panel>
            )}
          </Suspense>
        </Tabs>
        <PreviewPanel session={session} />
      </div>
    </div>
  );
}
