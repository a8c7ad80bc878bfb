/** The audit log: who did what to which session, project, token or secret (admin). */
import { Code, Group } from "@mantine/core";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { Time } from "../ui/time";
import { Choice, Search, usePeriod } from "./filters";

type Entry = Schemas["AuditEntry"];
const KINDS = [
  "session",
  "project",
  "token",
  "secret",
  "sign_in",
  "alert_rule",
  "records",
  "recovery",
  "cache",
];

export function Audit() {
  const [user, setUser] = useState("");
  const [kind, setKind] = useState("");
  const [outcome, setOutcome] = useState("");
  const period = usePeriod();
  const list = useList<Entry>("/api/v1/audit", {
    user_id: user,
    resource_kind: kind,
    outcome,
    from: period.from,
  });
  return (
    <>
      <Group gap="xs" mb="sm">
        <Search label="User" value={user} onChange={setUser} />
        <Choice label="Kind" options={KINDS} value={kind} onChange={setKind} />
        <Choice
          label="Outcome"
          options={["succeeded", "refused", "failed"]}
          value={outcome}
          onChange={setOutcome}
        />
        {period.control}
      </Group>
      <PagedTable
        label="Audit log"
        list={list}
        keyOf={(it) => it.entry_id}
        emptyTitle="No entries"
        emptyText="No changes yet."
        columns={[
          { title: "Time", cell: (it) => <Time value={it.time} /> },
          { title: "User", cell: (it) => (it.role === "admin" ? `${it.user_id} (admin)` : it.user_id) },
          { title: "Action", cell: (it) => it.action },
          { title: "Resource", cell: (it) => (it.resource ? <Code>{it.resource}</Code> : "–") },
          { title: "Outcome", cell: (it) => (it.status ? `${it.outcome} (${it.status})` : it.outcome) },
          { title: "Address", cell: (it) => it.address ?? "–" },
        ]}
      />
    </>
  );
}
