/** Coverage by component: how it went, and each measurement. */
import { Group, Progress } from "@mantine/core";
import { Suspense, useMemo, useState } from "react";
import type { Schemas } from "../api/client";
import { lazyPart } from "../ui/lazy";
import { PagedTable, useList } from "../ui/paged";
import { Time } from "../ui/time";
import { Choice, usePeriod } from "./filters";

type Measured = Schemas["CoverageView"];
const Chart = lazyPart(() => import("../ui/chart"));

export function Coverage() {
  const [component, setComponent] = useState("");
  const period = usePeriod();
  const all = useList<Measured>("/api/v1/coverage", { from: period.from });
  const list = useList<Measured>("/api/v1/coverage", { component, from: period.from });
  const components = [...new Set(all.items.map((it) => it.component))].sort();
  const points = useMemo(() => {
    const ordered = [...list.items].reverse();
    return {
      times: ordered.map((it) => new Date(it.timestamp).getTime() / 1000),
      values: ordered.map((it) => it.coverage_percent),
    };
  }, [list.items]);
  return (
    <>
      <Group gap="xs" mb="sm">
        <Choice label="Component" options={components} value={component} onChange={setComponent} />
        {period.control}
      </Group>
      {component !== "" && points.times.length > 1 && (
        <Suspense fallback={null}>
          <Chart {...points} label={`Coverage of ${component}, percent`} height={140} />
        </Suspense>
      )}
      <PagedTable
        label="Coverage"
        list={list}
        keyOf={(it) => it.coverage_id}
        emptyTitle="No coverage"
        emptyText="Send a report to POST /api/v1/coverage/cobertura."
        columns={[
          { title: "Component", cell: (it) => it.component },
          {
            title: "Covered",
            cell: (it) => (
              <Group gap="xs" wrap="nowrap">
                <Progress value={it.coverage_percent} w={120} aria-label={`Coverage of ${it.component}`} />
                {it.coverage_percent.toFixed(1)} %
              </Group>
            ),
          },
          {
            title: "Lines",
            cell: (it) => (it.lines_total === null ? "–" : `${it.lines_covered} of ${it.lines_total}`),
          },
          { title: "Tests", cell: (it) => it.test_type ?? "–" },
          { title: "Time", cell: (it) => <Time value={it.timestamp} /> },
        ]}
      />
    </>
  );
}
