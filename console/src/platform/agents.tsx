/** Agents of the platform with their health. */
import { Group } from "@mantine/core";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { Status } from "../ui/status";
import { Time } from "../ui/time";
import { Choice } from "./filters";

const REFRESH_MS = 10_000;

export function Agents() {
  const [category, setCategory] = useState("");
  const [status, setStatus] = useState("");
  const list = useList<Schemas["AgentView"]>("/api/v1/agents", { category, status }, REFRESH_MS);
  return (
    <>
      <Group gap="xs" mb="sm">
        <Choice
          label="Category"
          options={["core", "qa", "aiml", "enterprise", "infrastructure"]}
          value={category}
          onChange={setCategory}
        />
        <Choice
          label="Status"
          options={["healthy", "warning", "error", "unknown"]}
          value={status}
          onChange={setStatus}
        />
      </Group>
      <PagedTable
        label="Agents"
        list={list}
        keyOf={(it) => it.agent_id}
        emptyTitle="No agents"
        emptyText="An agent appears with its first heartbeat."
        columns={[
          { title: "Name", cell: (it) => it.name },
          { title: "Category", cell: (it) => it.category },
          { title: "Status", cell: (it) => <Status value={it.status} /> },
          { title: "Uptime", cell: (it) => (it.uptime === null ? "–" : `${it.uptime.toFixed(1)} %`) },
          {
            title: "Response time",
            cell: (it) => (it.avg_response_time === null ? "–" : `${it.avg_response_time} ms`),
          },
          {
            title: "Success rate",
            cell: (it) => (it.success_rate === null ? "–" : `${it.success_rate.toFixed(1)} %`),
          },
          { title: "Last active", cell: (it) => <Time value={it.last_active} /> },
        ]}
      />
    </>
  );
}
