/** Alerts, which can be acknowledged and resolved, and the rules that open them. */
import { Button, Group, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { caller } from "../api/caller";
import { json, type Schemas } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { ErrorState } from "../ui/states";
import { Status } from "../ui/status";
import { Time } from "../ui/time";
import { Choice } from "./filters";
import { Rules } from "./rules";

type Alert = Schemas["AlertView"];
const REFRESH_MS = 10_000;

export function Alerts() {
  const [status, setStatus] = useState("");
  const [severity, setSeverity] = useState("");
  const list = useList<Alert>("/api/v1/alerts", { status, severity }, REFRESH_MS);
  return (
    <>
      <Group gap="xs" mb="sm">
        <Choice
          label="Status"
          options={["active", "acknowledged", "resolved"]}
          value={status}
          onChange={setStatus}
        />
        <Choice
          label="Severity"
          options={["info", "warning", "error", "critical"]}
          value={severity}
          onChange={setSeverity}
        />
      </Group>
      <PagedTable
        label="Alerts"
        list={list}
        keyOf={(it) => it.alert_id}
        emptyTitle="No alerts"
        emptyText="Nothing has exceeded a rule."
        columns={[
          { title: "Severity", cell: (it) => <Status value={it.severity} /> },
          {
            title: "Alert",
            cell: (it) => (
              <>
                <Text size="sm" fw={600}>
                  {it.title}
                </Text>
                <Text size="xs" className="wrapped">
                  {it.message}
                </Text>
              </>
            ),
          },
          { title: "Source", cell: (it) => it.source ?? "–" },
          { title: "Status", cell: (it) => <Status value={it.status === "active" ? "open" : it.status} /> },
          { title: "Opened", cell: (it) => <Time value={it.timestamp} /> },
          { title: "Actions", cell: (it) => <AlertActions alert={it} /> },
        ]}
      />
      <Rules />
    </>
  );
}

function AlertActions({ alert }: { alert: Alert }) {
  const queries = useQueryClient();
  const change = useMutation({
    mutationFn: (action: "acknowledge" | "resolve") =>
      json<Alert>(`/api/v1/alerts/${alert.alert_id}/${action}`, { method: "POST" }),
    onSettled: () => queries.invalidateQueries({ queryKey: ["list", "/api/v1/alerts"] }),
  });
  if (alert.status === "resolved" || !caller.isAdmin) return null;
  return (
    <Group gap={4} wrap="nowrap">
      {alert.status === "active" && (
        <Button
          size="compact-xs"
          variant="default"
          loading={change.isPending}
          onClick={() => change.mutate("acknowledge")}
        >
          Acknowledge
        </Button>
      )}
      <Button
        size="compact-xs"
        variant="default"
        loading={change.isPending}
        onClick={() => change.mutate("resolve")}
      >
        Resolve
      </Button>
      {change.error && <ErrorState error={change.error} />}
    </Group>
  );
}
