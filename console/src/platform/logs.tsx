/** The log lines of services: searched in the list, or followed live. */
import { Button, Code, Group, Modal, Text } from "@mantine/core";
import { useEffect, useState } from "react";
import { Link } from "wouter";
import type { Schemas } from "../api/client";
import { follow } from "../api/stream";
import { listPath, PagedTable, useList } from "../ui/paged";
import { Status } from "../ui/status";
import { Time } from "../ui/time";
import { Choice, Search, usePeriod } from "./filters";

type Line = Schemas["LogView"];
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
/** Lines that are kept while the log is followed. */
const KEPT = 500;

export function Logs() {
  const [text, setText] = useState("");
  const [level, setLevel] = useState("");
  const [service, setService] = useState("");
  const [isLive, setLive] = useState(false);
  const [opened, setOpened] = useState<Line | null>(null);
  const period = usePeriod();
  const list = useList<Line>("/api/v1/logs", { q: text, level, service, from: period.from });
  const live = useTail(isLive, level, service);
  const services = [...new Set(list.items.map((it) => it.service ?? ""))].filter(Boolean).sort();
  const shown = { ...list, items: [...live, ...list.items] };
  return (
    <>
      <Group gap="xs" mb="sm">
        <Search label="Search messages" value={text} onChange={setText} />
        <Choice label="Level" options={LEVELS} value={level} onChange={setLevel} />
        <Choice label="Service" options={services} value={service} onChange={setService} />
        {period.control}
        <Button
          size="compact-sm"
          variant={isLive ? "filled" : "default"}
          aria-pressed={isLive}
          disabled={text !== ""}
          onClick={() => setLive(!isLive)}
        >
          Live
        </Button>
      </Group>
      <PagedTable
        label="Log lines"
        list={shown}
        keyOf={(it) => it.log_id}
        emptyTitle="No log lines"
        emptyText="Services send them over OTLP to /v1/logs."
        columns={[
          { title: "Time", cell: (it) => <Time value={it.timestamp} /> },
          { title: "Level", cell: (it) => <Status value={it.level} /> },
          { title: "Service", cell: (it) => it.service ?? "–" },
          {
            title: "Message",
            cell: (it) => (
              <button type="button" className="link wrapped" onClick={() => setOpened(it)}>
                {it.message.length > 300 ? `${it.message.slice(0, 300)}…` : it.message}
              </button>
            ),
          },
        ]}
      />
      <Modal
        opened={opened !== null}
        onClose={() => setOpened(null)}
        title="Log line"
        size="lg"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        {opened && <WholeLine line={opened} />}
      </Modal>
    </>
  );
}

function WholeLine({ line }: { line: Line }) {
  const trace = (line.metadata as { trace_id?: string } | null)?.trace_id;
  return (
    <>
      <Text size="sm" c="dimmed">
        {new Date(line.timestamp).toLocaleString()} {line.level} {line.service}
      </Text>
      <pre className="wrapped">{line.message}</pre>
      {line.stack_trace && <pre className="wrapped">{line.stack_trace}</pre>}
      {line.request_id && (
        <Text size="sm">
          Request <code>{line.request_id}</code>
        </Text>
      )}
      {trace && <Link href={`/platform/traces/${trace}`}>Show the trace</Link>}
      {line.metadata && <Code block>{JSON.stringify(line.metadata, null, 2)}</Code>}
    </>
  );
}

/** Lines that were written since the live view was switched on, newest first. */
function useTail(isLive: boolean, level: string, service: string): Line[] {
  const [lines, setLines] = useState<Line[]>([]);
  useEffect(() => {
    setLines([]);
    if (!isLive) return;
    return follow(listPath("/api/v1/logs/tail", { level, service }), {
      onEvents: (events) => {
        const fresh = events.map(({ data }) => JSON.parse(data) as Line).reverse();
        setLines((before) => [...fresh, ...before].slice(0, KEPT));
      },
    });
  }, [isLive, level, service]);
  return lines;
}
