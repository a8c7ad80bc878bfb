/** Test results: how the share of passed tests went, each result, and what failed in it. */
import { Group, Modal, Text } from "@mantine/core";
import { Suspense, useMemo, useState } from "react";
import type { Schemas } from "../api/client";
import { lazyPart } from "../ui/lazy";
import { PagedTable, useList } from "../ui/paged";
import { Status } from "../ui/status";
import { Time } from "../ui/time";
import { Choice, usePeriod } from "./filters";

type Result = Schemas["TestResultView"];
const Chart = lazyPart(() => import("../ui/chart"));
const TYPES = ["unit", "integration", "security", "performance", "regression", "uat", "load", "smoke", "e2e"];

export function Tests() {
  const [type, setType] = useState("");
  const [status, setStatus] = useState("");
  const [opened, setOpened] = useState<Result | null>(null);
  const period = usePeriod();
  const list = useList<Result>("/api/v1/test-results", { test_type: type, status, from: period.from });
  return (
    <>
      <Group gap="xs" mb="sm">
        <Choice label="Type" options={TYPES} value={type} onChange={setType} />
        <Choice
          label="Status"
          options={["completed", "failed", "running", "cancelled"]}
          value={status}
          onChange={setStatus}
        />
        {period.control}
      </Group>
      <PassRate results={list.items} />
      <PagedTable
        label="Test results"
        list={list}
        keyOf={(it) => it.test_id}
        emptyTitle="No test results"
        emptyText="Send a JUnit report to POST /api/v1/test-results/junit."
        columns={[
          { title: "Type", cell: (it) => it.test_type },
          { title: "Status", cell: (it) => <Status value={it.status} /> },
          { title: "Passed", cell: (it) => `${it.passed} of ${it.total_tests}` },
          {
            title: "Failed",
            cell: (it) =>
              it.failed === 0 ? (
                "0"
              ) : (
                <button type="button" className="link" onClick={() => setOpened(it)}>
                  {it.failed} failed
                </button>
              ),
          },
          { title: "Took", cell: (it) => `${it.execution_time.toFixed(1)} s` },
          { title: "Branch", cell: (it) => it.branch_name ?? "–" },
          { title: "Time", cell: (it) => <Time value={it.timestamp} /> },
        ]}
      />
      <Modal
        opened={opened !== null}
        onClose={() => setOpened(null)}
        title="Failed tests"
        size="lg"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        {failedTests(opened).map(({ name, error }) => (
          <div key={name}>
            <Text fw={600} size="sm">
              {name}
            </Text>
            <pre className="wrapped">{error}</pre>
          </div>
        ))}
      </Modal>
    </>
  );
}

function failedTests(result: Result | null): { name: string; error: string }[] {
  const failed: unknown = result?.failed_tests;
  return Array.isArray(failed) ? (failed as { name: string; error: string }[]) : [];
}

function PassRate({ results }: { results: Result[] }) {
  const points = useMemo(() => {
    const counted = results.filter((it) => it.timestamp !== null && it.total_tests > 0).reverse();
    return {
      times: counted.map((it) => new Date(it.timestamp ?? 0).getTime() / 1000),
      values: counted.map((it) => (100 * it.passed) / it.total_tests),
    };
  }, [results]);
  if (points.times.length < 2) return null;
  return (
    <Suspense fallback={null}>
      <Chart {...points} label="Passed tests, percent" height={140} />
    </Suspense>
  );
}
