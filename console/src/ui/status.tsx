/** A status as a coloured word. */
import { Badge } from "@mantine/core";

const COLORS: Record<string, string> = {
  creating: "blue",
  ready: "teal",
  running: "teal",
  completed: "teal",
  passed: "teal",
  active: "teal",
  healthy: "teal",
  resolved: "teal",
  ok: "teal",
  done: "teal",
  error: "red",
  failed: "red",
  critical: "red",
  warning: "orange",
  acknowledged: "yellow",
  started: "blue",
};

export function Status({ value, ...rest }: { value: string | null | undefined; "data-testid"?: string }) {
  if (!value) return <span>–</span>;
  return (
    <Badge
      variant="outline"
      color={COLORS[value.toLowerCase()] ?? "gray"}
      tt="none"
      className="status"
      {...rest}
    >
      {value}
    </Badge>
  );
}
