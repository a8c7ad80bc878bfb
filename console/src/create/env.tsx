/** Environment variables of a launch. Values can be typed hidden, as secrets are. */
import { ActionIcon, Button, Checkbox, Fieldset, Group, PasswordInput, TextInput } from "@mantine/core";

export interface EnvEntry {
  key: number;
  name: string;
  value: string;
  isSecret: boolean;
}

/** The variables as the API takes them. Entries without a name are left out. */
export function toEnv(entries: EnvEntry[]): Record<string, string> {
  return Object.fromEntries(entries.filter((it) => it.name !== "").map((it) => [it.name, it.value]));
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
