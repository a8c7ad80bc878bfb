/** Traces: the list of spans, and one trace as a waterfall with its log lines. */
import { Group, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { api, type Schemas, unwrap } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { ErrorState, PageLoading } from "../ui/states";
import { Status } from "../ui/status";
import { duration, Time } from "../ui/time";
import { Choice, Search, usePeriod } from "./filters";

type Span = Schemas["SpanView"];
type Node = Schemas["SpanNode"];

export function Traces({ item }: { item: string }) {
  return item ? <Trace id={item} /> : <SpanList />;
}

function SpanList() {
  const [service, setService] = useState("");
  const [operation, setOperation] = useState("");
  const [status, setStatus] = useState("");
  const period = usePeriod();
  const list = useList<Span>("/api/v1/traces", {
    service_name: service,
    operation_name: operation,
    status,
    from: period.from,
  });
  return (
    <>
      <Group gap="xs" mb="sm">
        <Search label="Service" value={service} onChange={setService} />
        <Search label="Operation" value={operation} onChange={setOperation} />
        <Choice
          label="Status"
          options={["success", "error", "timeout"]}
          value={status}
          onChange={setStatus}
        />
        {period.control}
      </Group>
      <PagedTable
        label="Spans"
        list={list}
        keyOf={(it) => `${it.trace_id} ${it.span_id}`}
        emptyTitle="No spans"
        emptyText="Services send them over OTLP to /v1/traces."
        columns={[
          {
            title: "Operation",
            cell: (it) => <Link href={`/platform/traces/${it.trace_id}`}>{it.operation_name}</Link>,
          },
          { title: "Service", cell: (it) => it.service_name },
          { title: "Status", cell: (it) => <Status value={it.status} /> },
          { title: "Took", cell: (it) => (it.duration_ms === null ? "–" : duration(it.duration_ms)) },
          { title: "Started", cell: (it) => <Time value={it.start_time} /> },
        ]}
      />
    </>
  );
}

/** The spans of a trace in the order of a waterfall, each with its depth. */
export function inOrder(spans: Node[], depth = 0): { span: Node; depth: number }[] {
  return [...spans]
    .sort((a, b) => a.start_time.localeCompare(b.start_time))
    .flatMap((span) => [{ span, depth }, ...inOrder((span.children ?? []) as Node[], depth + 1)]);
}

function Trace({ id }: { id: string }) {
  const trace = useQuery({
    queryKey: ["trace", id],
    queryFn: () => unwrap(api.GET("/api/v1/traces/{trace_id}", { params: { path: { trace_id: id } } })),
  });
  if (trace.error) return <ErrorState error={trace.error} onRetry={() => trace.refetch()} />;
  if (!trace.data) return <PageLoading />;
  const begin = new Date(trace.data.start_time).getTime();
  const whole = Math.max(trace.data.duration_ms, 1);
  return (
    <>
      <Text size="sm" mb="sm">
        <Link href="/platform/traces">All traces</Link> · <code>{id}</code> · {trace.data.span_count} spans,{" "}
        {duration(trace.data.duration_ms)}
        {trace.data.truncated && "; only a part of it is shown"}
      </Text>
      <table className="waterfall" aria-label="Waterfall">
        <thead>
          <tr>
            <th>Operation</th>
            <th>Service</th>
            <th>Took</th>
            <th>When</th>
          </tr>
        </thead>
        <tbody>
          {inOrder(trace.data.spans).map(({ span, depth }) => (
            <tr key={span.span_id}>
              <td style={{ paddingLeft: depth * 16 }}>{span.operation_name}</td>
              <td>{span.service_name}</td>
              <td>{span.duration_ms === null ? "–" : duration(span.duration_ms)}</td>
              <td className="waterfall-cell">
                <Bar span={span} begin={begin} whole={whole} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {trace.data.logs.length > 0 && (
        <section aria-label="Log lines of the trace">
          <Text fw={600} mt="md">
            Log lines
          </Text>
          {trace.data.logs.map((line) => (
            <Text key={line.log_id} size="xs" ff="monospace" className="wrapped">
              {new Date(line.timestamp).toLocaleTimeString()} {line.level} {line.message}
            </Text>
          ))}
        </section>
      )}
    </>
  );
}

function Bar({ span, begin, whole }: { span: Node; begin: number; whole: number }) {
  const left = ((new Date(span.start_time).getTime() - begin) / whole) * 100;
  const width = ((span.duration_ms ?? 0) / whole) * 100;
  return (
    <div className="waterfall-bar">
      <span
        className={span.status === "error" ? "error" : undefined}
        style={{ left: `${Math.min(left, 99)}%`, width: `${Math.min(width, 100 - left)}%` }}
      />
    </div>
  );
}
