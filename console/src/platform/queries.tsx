/** The documented questions, each as a table and, where it has times and numbers, as a plot. */
import { Group, NativeSelect, Table, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Suspense, useMemo, useState } from "react";
import { caller } from "../api/caller";
import { api, unwrap } from "../api/client";
import { lazyPart } from "../ui/lazy";
import { Empty, ErrorState, PageLoading } from "../ui/states";

const Chart = lazyPart(() => import("../ui/chart"));

export function Queries() {
  const queries = useQuery({ queryKey: ["queries"], queryFn: () => unwrap(api.GET("/api/v1/analytics")) });
  const [chosen, setChosen] = useState("");
  const [period, setPeriod] = useState("");
  if (queries.error) return <ErrorState error={queries.error} onRetry={() => queries.refetch()} />;
  if (!queries.data) return <PageLoading />;
  const allowed = queries.data.filter((it) => caller.isAdmin || !it.admin_only);
  const query = allowed.find((it) => it.name === chosen) ?? allowed[0];
  if (!query) return <Empty title="There are no queries" />;
  return (
    <>
      <Group gap="xs" mb="sm" align="end">
        <NativeSelect
          size="xs"
          label="Question"
          value={query.name}
          data={allowed.map((it) => ({ value: it.name, label: it.title }))}
          onChange={(event) => setChosen(event.currentTarget.value)}
        />
        {query.window && (
          <TextInput
            size="xs"
            w={110}
            label="Period"
            placeholder={query.window}
            value={period}
            onChange={(event) => setPeriod(event.currentTarget.value)}
          />
        )}
      </Group>
      <Answer name={query.name} period={query.window && /^\d+[smhd]$/.test(period) ? period : ""} />
    </>
  );
}

type Row = Record<string, unknown>;

function Answer({ name, period }: { name: string; period: string }) {
  const answer = useQuery({
    queryKey: ["query", name, period],
    queryFn: () =>
      unwrap(
        api.GET("/api/v1/analytics/{name}", {
          params: { path: { name }, query: period ? { window: period } : {} },
        }),
      ),
  });
  const rows = (answer.data?.items ?? []) as Row[];
  const plot = useMemo(() => plotOf(rows), [rows]);
  if (answer.error) return <ErrorState error={answer.error} onRetry={() => answer.refetch()} />;
  if (!answer.data) return <PageLoading />;
  if (rows.length === 0) return <Empty title="No rows">Nothing was recorded in this period.</Empty>;
  const columns = Object.keys(rows[0] ?? {});
  return (
    <>
      {plot && (
        <Suspense fallback={null}>
          <Chart times={plot.times} values={plot.values} label={plot.label} height={180} />
        </Suspense>
      )}
      <Table.ScrollContainer minWidth={400} type="native">
        <Table aria-label={answer.data.title}>
          <Table.Thead>
            <Table.Tr>
              {columns.map((column) => (
                <Table.Th key={column}>{column.replaceAll("_", " ")}</Table.Th>
              ))}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {rows.map((row) => (
              <Table.Tr key={JSON.stringify(row)}>
                {columns.map((column) => (
                  <Table.Td key={column}>{shown(row[column])}</Table.Td>
                ))}
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </>
  );
}

const TIME = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d|$)/;

/** The first column of times against the first column of numbers; null if a row has no time, or times repeat. */
export function plotOf(rows: Row[]): { times: number[]; values: number[]; label: string } | null {
  const first = rows[0];
  if (!first || rows.length < 2) return null;
  const time = Object.keys(first).find((name) => TIME.test(String(first[name])));
  const value = Object.keys(first).find((name) => typeof first[name] === "number");
  if (!time || !value) return null;
  const points = rows
    .map((row) => [new Date(String(row[time])).getTime() / 1000, Number(row[value])] as const)
    .sort(([a], [b]) => a - b);
  const times = points.map(([at]) => at);
  if (new Set(times).size < times.length || times.some(Number.isNaN)) return null;
  return { times, values: points.map(([, number]) => number), label: value.replaceAll("_", " ") };
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : value.toFixed(2);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
