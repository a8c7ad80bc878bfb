/** The rules that open alerts: listed, and for an admin created, changed, switched off and removed. */
import {
  Autocomplete,
  Button,
  Group,
  NativeSelect,
  NumberInput,
  Text,
  TextInput,
  Title,
} from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { caller } from "../api/caller";
import { json, type Schemas, sendJson } from "../api/client";
import { FormDialog, RemoveButton } from "../ui/form";
import { PagedTable, useList } from "../ui/paged";
import { ErrorState } from "../ui/states";
import { Status } from "../ui/status";

type Rule = Schemas["RuleView"];
type Content = Schemas["Rule"];

const RULES = "/api/v1/alert-rules";
const NEW: Content = {
  description: "",
  measure: "",
  comparison: ">=",
  threshold: 1,
  window_seconds: 300,
  for_seconds: 0,
  resolve_seconds: 60,
  severity: "warning",
  is_enabled: true,
};

function rulePath(name: string): string {
  return `${RULES}/${encodeURIComponent(name)}`;
}

/** A rule without what the service adds to it. */
function contentOf({ name: _name, created_at: _created, updated_at: _updated, ...content }: Rule): Content {
  return content;
}

function useRefresh(): () => Promise<void> {
  const queries = useQueryClient();
  return () => queries.invalidateQueries({ queryKey: ["list", RULES] });
}

export function Rules() {
  const list = useList<Rule>(RULES);
  const refresh = useRefresh();
  const [edited, setEdited] = useState<{ name: string; content: Content } | null>(null);
  return (
    <section aria-label="Alert rules">
      <Group justify="space-between" mt="xl" mb="xs">
        <Title order={2} size="h4">
          Rules
        </Title>
        {caller.isAdmin && (
          <Button size="xs" variant="default" onClick={() => setEdited({ name: "", content: NEW })}>
            New rule
          </Button>
        )}
      </Group>
      <PagedTable
        label="Rules"
        list={list}
        keyOf={(it) => it.name}
        emptyTitle="No rules"
        columns={[
          {
            title: "Rule",
            cell: (it) => (
              <>
                {it.name}
                <Text size="xs" c="dimmed">
                  {it.description}
                </Text>
              </>
            ),
          },
          { title: "Opens when", cell: (it) => `${it.measure} ${it.comparison} ${it.threshold}` },
          { title: "Within", cell: (it) => `${it.window_seconds} s` },
          { title: "Severity", cell: (it) => <Status value={it.severity} /> },
          { title: "In use", cell: (it) => <RuleSwitch rule={it} /> },
          ...(caller.isAdmin
            ? [
                {
                  title: "Actions",
                  cell: (it: Rule) => (
                    <Group gap={4} wrap="nowrap">
                      <Button
                        size="compact-xs"
                        variant="default"
                        aria-label={`Edit ${it.name}`}
                        onClick={() => setEdited({ name: it.name, content: contentOf(it) })}
                      >
                        Edit
                      </Button>
                      <RemoveButton
                        what={`the rule ${it.name}`}
                        text="Its open alerts are resolved."
                        onRemove={() => json<void>(rulePath(it.name), { method: "DELETE" }).then(refresh)}
                      />
                    </Group>
                  ),
                },
              ]
            : []),
        ]}
      />
      {edited && (
        <RuleForm
          name={edited.name}
          content={edited.content}
          measures={[...new Set(list.items.map((it) => it.measure))].sort()}
          onClose={() => setEdited(null)}
        />
      )}
    </section>
  );
}

function RuleSwitch({ rule }: { rule: Rule }) {
  const refresh = useRefresh();
  const change = useMutation({
    mutationFn: () =>
      sendJson<Rule>("PUT", rulePath(rule.name), { ...contentOf(rule), is_enabled: !rule.is_enabled }),
    onSettled: refresh,
  });
  if (!caller.isAdmin) return rule.is_enabled ? "yes" : "no";
  return (
    <>
      <Button
        size="compact-xs"
        variant="default"
        loading={change.isPending}
        aria-label={`Switch ${rule.is_enabled ? "off" : "on"} ${rule.name}`}
        onClick={() => change.mutate()}
      >
        {rule.is_enabled ? "Switch off" : "Switch on"}
      </Button>
      {change.error && <ErrorState error={change.error} />}
    </>
  );
}

interface FormProps {
  /** Empty for a new rule. */
  name: string;
  content: Content;
  /** Measures that are offered; the service accepts more, and names them when it refuses one. */
  measures: string[];
  onClose: () => void;
}

function RuleForm({ name, content, measures, onClose }: FormProps) {
  const refresh = useRefresh();
  const [chosenName, setName] = useState(name);
  const [rule, setRule] = useState(content);
  function change(changed: Partial<Content>): void {
    setRule({ ...rule, ...changed });
  }
  function seconds(label: string, key: "window_seconds" | "for_seconds" | "resolve_seconds") {
    return (
      <NumberInput
        label={label}
        min={0}
        suffix=" s"
        value={rule[key] ?? 0}
        onChange={(value) => change({ [key]: Number(value) })}
      />
    );
  }
  return (
    <FormDialog
      title={name ? `Rule ${name}` : "New rule"}
      onClose={onClose}
      onSave={() => sendJson("PUT", rulePath(chosenName.trim()), rule).then(refresh)}
    >
      <TextInput
        label="Name"
        required
        disabled={name !== ""}
        value={chosenName}
        onChange={(event) => setName(event.currentTarget.value)}
      />
      <TextInput
        label="Description"
        value={rule.description ?? ""}
        onChange={(event) => change({ description: event.currentTarget.value })}
      />
      <Autocomplete
        label="Measure"
        required
        data={measures}
        value={rule.measure}
        onChange={(measure) => change({ measure })}
      />
      <Group grow align="end">
        <NativeSelect
          label="Comparison"
          data={[">", ">=", "<", "<="]}
          value={rule.comparison ?? ">="}
          onChange={(event) => change({ comparison: event.currentTarget.value as Rule["comparison"] })}
        />
        <NumberInput
          label="Threshold"
          required
          value={rule.threshold}
          onChange={(value) => change({ threshold: Number(value) })}
        />
        <NativeSelect
          label="Severity"
          data={["info", "warning", "error", "critical"]}
          value={rule.severity ?? "warning"}
          onChange={(event) => change({ severity: event.currentTarget.value as Rule["severity"] })}
        />
      </Group>
      <Group grow align="end">
        {seconds("Measured within", "window_seconds")}
        {seconds("Opens after", "for_seconds")}
        {seconds("Resolves after", "resolve_seconds")}
      </Group>
    </FormDialog>
  );
}
