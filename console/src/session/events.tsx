/** The events of a session: what its launches did, and what has happened to it since. */
import { Text } from "@mantine/core";
import { Empty } from "../ui/states";
import { DataTable } from "../ui/table";
import { duration, Time } from "../ui/time";
import type { LaunchEvent, Launches } from "./launch";

/** What an event says, in words. */
export function described(event: LaunchEvent): string {
  const {
    stage,
    state,
    duration_ms: took,
  } = event as { stage?: string; state?: string; duration_ms?: number };
  switch (event.type) {
    case "stage":
      return `${stage} ${state}${typeof took === "number" ? ` after ${duration(took)}` : ""}`;
    case "status":
      return event.previous ? `${event.previous} → ${event.status}` : String(event.status);
    case "preview":
      return `${event.role} answers on port ${event.port}`;
    case "problem":
      return `${event.code}: ${event.message}`;
    case "end":
      return `The run ended: ${event.status}`;
    default:
      return "";
  }
}

export function EventList({ launches }: { launches: Launches }) {
  if (launches.events.length === 0)
    return <Empty title="No events yet">They are shown as the launch goes on.</Empty>;
  const numbers = new Map(launches.runs.map((run, index) => [run.id, index + 1]));
  return (
    <DataTable
      label="Events"
      items={[...launches.events].reverse()}
      keyOf={(event) => event.seq}
      columns={[
        { title: "No.", cell: (event) => event.seq },
        { title: "Time", cell: (event) => <Time value={event.time} /> },
        { title: "Run", cell: (event) => numbers.get(event.run_id) },
        { title: "Type", cell: (event) => event.type },
        {
          title: "Event",
          cell: (event) => (
            <Text size="sm" className="wrapped">
              {described(event)}
            </Text>
          ),
        },
      ]}
    />
  );
}
