/** The plan of a launch, role by role, as it was detected and as it is changed. */
import { Button, Fieldset, Group, NumberInput, TextInput } from "@mantine/core";
import type { Schemas } from "../api/client";

export type RolePlan = Schemas["RolePlan"];
/** A role that is null is left out of the launch. */
export type Plan = Record<string, RolePlan | null>;

/** The roles that differ from the detected plan, as the API takes them; null if none does. */
export function changedRoles(detected: Plan, plan: Plan): Plan | null {
  const changed = Object.entries(plan).filter(
    ([role, it]) => JSON.stringify(it) !== JSON.stringify(detected[role]),
  );
  return changed.length > 0 ? Object.fromEntries(changed) : null;
}

/** A variable's value in TOML, which may be a reference to a secret. */
function tomlOf(value: string | Schemas["FromSecret"]): string {
  return typeof value === "string"
    ? JSON.stringify(value)
    : `{ from_secret = ${JSON.stringify(value.from_secret)} }`;
}

/** The plan as the text of a sandbox.toml. */
export function toToml(plan: Plan): string {
  const tables = Object.entries(plan).flatMap(([role, it]) => {
    if (it === null) return [];
    const keys: [string, unknown][] = [
      ["runtime", it.runtime],
      ["root", it.root],
      ["install", it.install],
      ["start", it.start],
      ["port", it.port],
      ["health", it.health],
    ];
    const lines = keys
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      // A TOML string in double quotes has the escape sequences of JSON.
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    const env = Object.entries(it.env ?? {}).map(([key, value]) => `${key} = ${tomlOf(value)}`);
    return [`[${role}]\n${lines.join("\n")}\n${env.length > 0 ? `env = { ${env.join(", ")} }\n` : ""}`];
  });
  return tables.join("\n");
}

interface Props {
  plan: Plan;
  onChange: (plan: Plan) => void;
}

export function PlanEditor({ plan, onChange }: Props) {
  return (
    <>
      {Object.entries(plan).map(([role, it]) =>
        it === null ? (
          <Group key={role}>
            <span>{role} is left out of this launch.</span>
          </Group>
        ) : (
          <RoleEditor
            key={role}
            role={role}
            plan={it}
            onChange={(changed) => onChange({ ...plan, [role]: changed })}
            onRemove={
              Object.values(plan).filter(Boolean).length > 1
                ? () => onChange({ ...plan, [role]: null })
                : null
            }
          />
        ),
      )}
      <Group>
        <Button
          component="a"
          size="compact-sm"
          variant="default"
          download="sandbox.toml"
          href={`data:text/plain;charset=utf-8,${encodeURIComponent(toToml(plan))}`}
        >
          Save as sandbox.toml
        </Button>
      </Group>
    </>
  );
}

interface RoleProps {
  role: string;
  plan: RolePlan;
  onChange: (plan: RolePlan) => void;
  onRemove: (() => void) | null;
}

const TEXTS: [keyof RolePlan & ("runtime" | "root" | "install" | "start" | "health"), string][] = [
  ["runtime", "Runtime"],
  ["root", "Folder"],
  ["install", "Install command"],
  ["start", "Start command"],
  ["health", "Health path"],
];

function RoleEditor({ role, plan, onChange, onRemove }: RoleProps) {
  return (
    <Fieldset legend={plan.framework ? `${role} (${plan.framework})` : role} aria-label={`Plan of ${role}`}>
      <div className="plan-fields">
        {TEXTS.map(([name, label]) => (
          <TextInput
            key={name}
            size="sm"
            label={label}
            value={plan[name] ?? ""}
            onChange={(event) => {
              const text = event.currentTarget.value;
              const isCommand = name === "install" || name === "start";
              onChange({ ...plan, [name]: isCommand && text === "" ? null : text });
            }}
          />
        ))}
        <NumberInput
          size="sm"
          label="Port"
          min={1}
          max={65535}
          hideControls
          value={plan.port ?? ""}
          onChange={(value) => onChange({ ...plan, port: value === "" ? null : Number(value) })}
        />
      </div>
      {onRemove && (
        <Button size="compact-sm" variant="subtle" color="red" mt="xs" onClick={onRemove}>
          Leave out {role}
        </Button>
      )}
    </Fieldset>
  );
}
