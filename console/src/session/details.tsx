/** The facts of a session: containers, times, ids, and its runs. */
import { Table, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import type { Schemas, Session } from "../api/client";
import { Status } from "../ui/status";
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
    <Table aria-label="Containers">
      <Table.Thead>
        <Table.Tr>
          <Table.Th>Role</Table.Th>
          <Table.Th>Runtime</Table.Th>
          <Table.Th>State</Table.Th>
          <Table.Th>Address</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {entries.map(([role, container]) => (
          <Table.Tr key={role}>
            <Table.Td>{role}</Table.Td>
            <Table.Td>{container.runtime}</Table.Td>
            <Table.Td>{containerState(container)}</Table.Td>
            <Table.Td>
              <code>{container.ip ?? "–"}</code>
            </Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}

/** The state of a container and of its app, as text. */
export function containerState({ status, app, exit_code: code }: Schemas["ContainerView"]): string {
  if (app !== "exited") return status;
  return `${status}, its app exited${code === null ? "" : ` with ${code}`}`;
}

function Runs({ runs }: { runs: Run[] }) {
  return (
    <Table aria-label="Runs">
      <Table.Thead>
        <Table.Tr>
          <Table.Th>Run</Table.Th>
          <Table.Th>Started</Table.Th>
          <Table.Th>Result</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {runs.map((run, index) => (
          <Table.Tr key={run.id}>
            <Table.Td>{index + 1}</Table.Td>
            <Table.Td>
              <Time value={run.startedAt} />
            </Table.Td>
            <Table.Td>
              <Status value={run.problem ? "failed" : run.hasEnded ? "completed" : "started"} />{" "}
              {run.problem?.code}
            </Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
