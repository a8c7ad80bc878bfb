/** What the database records against what the engine has, and repairing the differences (admin). */
import { Badge, Button, Checkbox, Group, Text, Title } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { api, type Schemas, unwrap } from "../api/client";
import { useConfirm } from "../ui/confirm";
import { Empty, ErrorState, PageLoading } from "../ui/states";
import { Status } from "../ui/status";
import { type Column, DataTable } from "../ui/table";
import { usePageTitle } from "../ui/title";

type Finding = Schemas["FindingView"];
const RECOVERY = ["recovery"];

export default function RecoveryPage() {
  usePageTitle("Recovery");
  const queries = useQueryClient();
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [onlyDifferent, setOnlyDifferent] = useState(true);
  const { confirm, dialog } = useConfirm();
  const compared = useQuery({ queryKey: RECOVERY, queryFn: () => unwrap(api.GET("/api/v1/admin/recovery")) });
  const repair = useMutation({
    mutationFn: (ids: string[] | null) =>
      unwrap(api.POST("/api/v1/admin/recovery", { body: { session_ids: ids, dry_run: false } })),
    onSuccess: () => {
      setChosen(new Set());
      void queries.invalidateQueries({ queryKey: RECOVERY });
    },
  });
  const findings = compared.data?.items ?? [];
  const shown = onlyDifferent ? findings.filter(needsRepair) : findings;

  async function apply(ids: string[] | null): Promise<void> {
    const what = ids === null ? "everything that differs" : `${ids.length} chosen`;
    if (await confirm(`Repair ${what}?`, "Containers may be created, restarted or removed.", "Repair"))
      repair.mutate(ids);
  }

  return (
    <>
      <Group justify="space-between" mb="sm">
        <Title order={1} size="h3">
          Recovery
        </Title>
        <Group gap="xs">
          <Checkbox
            label="Only differences"
            checked={onlyDifferent}
            onChange={() => setOnlyDifferent(!onlyDifferent)}
          />
          <Button
            variant="default"
            size="xs"
            loading={compared.isFetching}
            onClick={() => compared.refetch()}
          >
            Compare again
          </Button>
          <Button
            size="xs"
            disabled={chosen.size === 0}
            onClick={() => apply([...chosen])}
            loading={repair.isPending}
          >
            Repair chosen
          </Button>
          <Button
            size="xs"
            color="red"
            variant="outline"
            disabled={!findings.some(needsRepair)}
            loading={repair.isPending}
            onClick={() => apply(null)}
          >
            Repair all
          </Button>
        </Group>
      </Group>
      <Text size="sm" c="dimmed" mb="sm">
        What the database records, what the engine has, and what would be done. Nothing is changed before you
        choose Repair.
      </Text>
      {repair.error && <ErrorState error={repair.error} />}
      {repair.data && <Outcomes items={repair.data.items} />}
      {compared.error && !compared.data && (
        <ErrorState error={compared.error} onRetry={() => compared.refetch()} />
      )}
      {compared.isPending && <PageLoading />}
      {compared.data && shown.length === 0 && (
        <Empty title="Nothing differs">The database and the engine agree.</Empty>
      )}
      {shown.length > 0 && <Findings items={shown} chosen={chosen} onChoose={setChosen} />}
      {dialog}
    </>
  );
}

function needsRepair(finding: Finding): boolean {
  return finding.action !== "none";
}

interface FindingsProps {
  items: Finding[];
  chosen: ReadonlySet<string>;
  onChoose: (chosen: ReadonlySet<string>) => void;
}

function Findings({ items, chosen, onChoose }: FindingsProps) {
  function toggle(id: string): void {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    onChoose(next);
  }
  const columns: Column<Finding>[] = [
    {
      title: "Choose",
      header: <span className="spoken">Choose</span>,
      cell: (it) => {
        const id = it.session_id;
        if (!id || !needsRepair(it)) return null;
        return (
          <Checkbox
            aria-label={`Choose ${nameOf(it)}`}
            checked={chosen.has(id)}
            onChange={() => toggle(id)}
          />
        );
      },
    },
    { title: "Session", cell: (it) => <SessionName finding={it} /> },
    { title: "Recorded", cell: (it) => (it.recorded ? <Status value={it.recorded.status} /> : "nothing") },
    {
      title: "On the engine",
      cell: (it) =>
        it.found.length === 0
          ? "nothing"
          : it.found.map((found) => (
              <Text size="xs" key={found.name}>
                {found.kind} {found.role ?? found.name} {found.status ?? ""}
              </Text>
            )),
    },
    { title: "Differs", cell: (it) => it.differs.join(", ") || "–" },
    {
      title: "Repair",
      cell: (it) => (
        <>
          <Badge variant="outline" color={needsRepair(it) ? "orange" : "gray"} tt="none">
            {it.action}
          </Badge>
          <Text size="xs">{it.reason}</Text>
        </>
      ),
    },
  ];
  return (
    <DataTable
      label="Findings"
      items={items}
      columns={columns}
      keyOf={keyOf}
      idOf={(it) => it.session_id ?? "stray"}
      minWidth={700}
    />
  );
}

function keyOf(finding: Finding): string {
  return finding.session_id ?? finding.found.map((it) => it.name).join();
}

function nameOf({ recorded }: Finding): string {
  return recorded?.project_id ?? (recorded ? "blank session" : "stray resource");
}

function SessionName({ finding }: { finding: Finding }) {
  const id = finding.session_id;
  return (
    <>
      {id && finding.recorded ? <Link href={`/sessions/${id}`}>{nameOf(finding)}</Link> : nameOf(finding)}
      {id && (
        <Text size="xs" c="dimmed" ff="monospace">
          {id.slice(0, 8)}
        </Text>
      )}
    </>
  );
}

function Outcomes({ items }: { items: Finding[] }) {
  const done = items.filter(needsRepair);
  return (
    <section aria-label="What was done" role="status" className="outcomes">
      <Text fw={600} size="sm">
        {done.length === 0 ? "There was nothing to repair." : `${done.length} repaired or tried:`}
      </Text>
      {done.map((finding) => (
        <Text size="sm" key={keyOf(finding)}>
          {finding.recorded?.project_id ?? finding.session_id?.slice(0, 8) ?? "stray resource"}:{" "}
          {finding.action}, {finding.outcome}
          {finding.error && `: ${finding.error}`}
        </Text>
      ))}
    </section>
  );
}
