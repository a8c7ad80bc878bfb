/** Stored secrets: their names; set, replaced and removed here. A value is never shown, since the API never answers one. */
import { Button, Group, NativeSelect, PasswordInput, Text, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { json, type Schemas, sendJson } from "../api/client";
import { FormDialog, RemoveButton } from "../ui/form";
import { listPath, PagedTable, useList } from "../ui/paged";
import { Time } from "../ui/time";

type Secret = Schemas["SecretView"];
const SECRETS = "/api/v1/secrets";

export function Secrets() {
  const [edited, setEdited] = useState<Secret | "new" | null>(null);
  const queries = useQueryClient();
  const list = useList<Secret>(SECRETS);
  const refresh = () => queries.invalidateQueries({ queryKey: ["list", SECRETS] });
  return (
    <>
      <Group mb="sm" justify="space-between" align="start">
        <Text size="sm" c="dimmed" maw={620}>
          A variable of a session's environment that is marked as a secret gets its value from here. Values
          are stored encrypted and are never shown again.
        </Text>
        <Button size="xs" variant="default" onClick={() => setEdited("new")}>
          New secret
        </Button>
      </Group>
      <PagedTable
        label="Secrets"
        list={list}
        keyOf={(it) => secretPath(it.name, it.project_id)}
        emptyTitle="No secrets yet"
        emptyText="Add one here, or mark a variable as a secret when you create a session."
        columns={[
          { title: "Name", cell: (it) => <code>{it.name}</code> },
          { title: "Project", cell: (it) => it.project_id ?? "all projects" },
          { title: "Created", cell: (it) => <Time value={it.created_at} /> },
          { title: "Value set", cell: (it) => <Time value={it.updated_at} /> },
          {
            title: "Actions",
            cell: (it) => (
              <Group gap={4} wrap="nowrap">
                <Button
                  size="compact-xs"
                  variant="default"
                  aria-label={`Replace the value of ${it.name}`}
                  onClick={() => setEdited(it)}
                >
                  Replace
                </Button>
                <RemoveButton
                  what={it.name}
                  text="Launches that refer to it will fail. Sessions that have its value keep it until they end."
                  onRemove={() =>
                    json<void>(secretPath(it.name, it.project_id), { method: "DELETE" }).then(refresh)
                  }
                />
              </Group>
            ),
          },
        ]}
      />
      {edited && (
        <SecretForm
          secret={edited === "new" ? null : edited}
          onSaved={refresh}
          onClose={() => setEdited(null)}
        />
      )}
    </>
  );
}

function secretPath(name: string, project: string | null): string {
  return listPath(`${SECRETS}/${encodeURIComponent(name)}`, { project_id: project });
}

interface FormProps {
  /** The secret whose value is replaced; null for a new one. */
  secret: Secret | null;
  onSaved: () => Promise<unknown>;
  onClose: () => void;
}

function SecretForm({ secret, onSaved, onClose }: FormProps) {
  const projects = useList<Schemas["ProjectView"]>("/api/v1/projects");
  const [name, setName] = useState(secret?.name ?? "");
  const [project, setProject] = useState(secret?.project_id ?? "");
  const [value, setValue] = useState("");

  async function save(): Promise<void> {
    await sendJson("PUT", secretPath(name.trim(), project || null), { value });
    await onSaved();
  }

  return (
    <FormDialog
      title={secret ? `Replace the value of ${secret.name}` : "New secret"}
      onClose={onClose}
      onSave={save}
    >
      {!secret && (
        <>
          <TextInput
            label="Name"
            description="Letters, digits and . _ -"
            required
            autoComplete="off"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <NativeSelect
            label="Project"
            description="A secret of a project is used instead of one of the same name for all projects."
            value={project}
            data={[
              { value: "", label: "All projects" },
              ...projects.items.map(({ project_id: id }) => ({ value: id, label: id })),
            ]}
            onChange={(event) => setProject(event.currentTarget.value)}
          />
        </>
      )}
      <PasswordInput
        label="Value"
        required
        autoComplete="new-password"
        description={
          secret ? "Sessions that run keep the earlier value until they are relaunched." : undefined
        }
        value={value}
        onChange={(event) => setValue(event.currentTarget.value)}
      />
    </FormDialog>
  );
}
