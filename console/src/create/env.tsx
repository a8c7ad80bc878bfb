/** Environment variables of a launch. A value that is typed as a secret is stored as one and never shown again. */
import { ActionIcon, Button, Checkbox, Fieldset, Group, PasswordInput, TextInput } from "@mantine/core";
import { sendJson } from "../api/client";

export interface EnvEntry {
  key: number;
  name: string;
  value: string;
  isSecret: boolean;
}

export type Env = Record<string, string | { from_secret: string }>;

/** The name under which the value of a variable is stored. A name of a secret begins with a letter or digit. */
export function secretName(variable: string): string {
  return variable.replace(/^_+/, "");
}

/**
 * The variables as the API takes them; entries without a name are left out. Secrets that were typed are stored first, for
 * the project if there is one; one without a value is the stored secret of that name.
 */
export async function toEnv(entries: EnvEntry[], project: string | null): Promise<Env> {
  const env: Env = {};
  for (const { name, value, isSecret } of entries) {
    if (name === "") continue;
    if (isSecret && value !== "") {
      const scope = project ? `?${new URLSearchParams({ project_id: project })}` : "";
      await sendJson("PUT", `/api/v1/secrets/${encodeURIComponent(secretName(name))}${scope}`, { value });
    }
    env[name] = isSecret ? { from_secret: secretName(name) } : value;
  }
  return env;
}

interface Props {
  entries: EnvEntry[];
  onChange: (entries: EnvEntry[]) => void;
}

export function EnvEditor({ entries, onChange }: Props) {
  function change(key: number, changed: Partial<EnvEntry>): void {
    onChange(entries.map((it) => (it.key === key ? { ...it, ...changed } : it)));
  }
  const next = Math.max(0, ...entries.map((it) => it.key)) + 1;
  return (
    <Fieldset legend="Environment">
      {entries.map(({ key, name, value, isSecret }) => {
        const Value = isSecret ? PasswordInput : TextInput;
        return (
          <Group key={key} gap="xs" mb="xs" wrap="nowrap">
            <TextInput
              aria-label={`Name of variable ${key}`}
              placeholder="NAME"
              value={name}
              onChange={(event) => change(key, { name: event.currentTarget.value })}
            />
            <Value
              aria-label={`Value of variable ${key}`}
              className="grow"
              autoComplete="off"
              placeholder={isSecret ? `Stored as the secret ${secretName(name)}; empty: the stored one` : ""}
              value={value}
              onChange={(event) => change(key, { value: event.currentTarget.value })}
            />
            <Checkbox
              label="Secret"
              checked={isSecret}
              onChange={(event) => change(key, { isSecret: event.currentTarget.checked })}
            />
            <ActionIcon
              variant="subtle"
              color="gray"
              aria-label={`Remove variable ${key}`}
              onClick={() => onChange(entries.filter((it) => it.key !== key))}
            >
              ×
            </ActionIcon>
          </Group>
        );
      })}
      <Button
        size="compact-sm"
        variant="default"
        onClick={() => onChange([...entries, { key: next, name: "", value: "", isSecret: false }])}
      >
        Add a variable
      </Button>
    </Fieldset>
  );
}
