/** The facts of a session: containers, times, ids, and its runs. */
import { Table, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import type { Schemas, Session } from "../api/client";
import { Status } from "../ui/status";
import { DataTable } from "../ui/table";
import { Time } from "../ui/time";
import type { Launches, Run } from "./launch";

export function Details({ session, launches }: { session: Session; launches: Launches }) {
  const facts: [string, ReactNode][] = [
    ["Session", <code key="id">{session.session_id}</code>],
    ["Project", session.project_id ?? "none"],
    ["User", session.user_id],
    ["Runtime", session.runtime_type],
    ["Memory", `${session.memory_mb} MiB for each container`],
    ["Pipeline run", <code key="run">{session.pipeline_run_id}</code>],
    ["Created", <Time key="created" value={session.created_at} />],
    ["Last active", <Time key="active" value={session.last_active} />],
    session.terminated_at
      ? ["Ended", <Time key="ended" value={session.terminated_at} />]
      : ["Ends", session.expires_at ? <Time key="ends" value={session.expires_at} /> : "never"],
  ];
  return (
    <>
      <Table withRowBorders={false} aria-label="Facts">
        <Table.Tbody>
          {facts.map(([name, value]) => (
            <Table.Tr key={name}>
              <Table.Th w={140} scope="row">
                {name}
              </Table.Th>
              <Table.Td>{value}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      <Title order={2} size="h5" mt="md">
        Containers
      </Title>
      <Containers containers={session.containers} />
      <Title order={2} size="h5" mt="md">
        Runs
      </Title>
      <Runs runs={launches.runs} />
    </>
  );
}

function Containers({ containers }: { containers: Session["containers"] }) {
  const entries = Object.entries(containers);
  if (entries.length === 0) return <Text size="sm">There are no containers.</Text>;
  return (
    <DataTable
      label="Containers"
      items={entries}
      keyOf={([role]) => role}
      columns={[
        { title: "Role", cell: ([role]) => role },
        { title: "Runtime", cell: ([, it]) => it.runtime },
        { title: "State", cell: ([, it]) => containerState(it) },
        { title: "Address", cell: ([, it]) => <code>{it.ip ?? "–"}</code> },
      ]}
    />
  );
}

/** The state of a container and of its app, as text. */
export function containerState({ status, app, exit_code: code }: Schemas["ContainerView"]): string {
  if (app !== "exited") return status;
  return `${status}, its app exited${code === null ? "" : ` with ${code}`}`;
}

function Runs({ runs }: { runs: Run[] }) {
  const items = runs.map((run, index) => ({ ...run, number: index + 1 }));
  return (
    <DataTable
      label="Runs"
      items={items}
      keyOf={(run) => run.id}
      columns={[
        { title: "Run", cell: (run) => run.number },
        { title: "Started", cell: (run) => <Time value={run.startedAt} /> },
        {
          title: "Result",
          cell: (run) => (
            <>
              <Status value={run.problem ? "failed" : run.hasEnded ? "completed" : "started"} />{" "}
              {run.problem?.code}
            </>
          ),
        },
      ]}
    />
  );
}
