/** CPU, memory, disk and network of each role, as they are and over the last hour. */
import { Group, Paper, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Suspense } from "react";
import { json, type Session, sessionPath } from "../api/client";
import { lazyPart } from "../ui/lazy";
import { Empty, ErrorState, PageLoading } from "../ui/states";
import { bytes } from "../ui/time";
import { type History, type Sample, seriesOf } from "./history";

const Chart = lazyPart(() => import("../ui/chart"));
const REFRESH_MS = 5000;

export default function UsagePanel({ session }: { session: Session }) {
  const history = useQuery({
    queryKey: ["history", session.session_id],
    queryFn: () => json<History>(`${sessionPath(session.session_id)}/stats/history`),
    refetchInterval: REFRESH_MS,
    enabled: session.status !== "terminated",
  });
  if (session.status === "terminated")
    return <Empty title="The session is over">Its containers are gone.</Empty>;
  if (history.error && !history.data)
    return <ErrorState error={history.error} onRetry={() => history.refetch()} />;
  if (!history.data) return <PageLoading />;
  const roles = Object.entries(history.data.roles);
  if (roles.every(([, samples]) => samples.length === 0))
    return (
      <Empty title="Nothing measured yet">
        Containers of earlier releases do not measure; a relaunch changes that.
      </Empty>
    );
  return (
    <>
      {roles.map(([role, samples]) => (
        <RoleUsage key={role} role={role} samples={samples} />
      ))}
    </>
  );
}

function RoleUsage({ role, samples }: { role: string; samples: Sample[] }) {
  const series = seriesOf(samples);
  return (
    <section aria-label={`Usage of ${role}`}>
      <Text fw={600} mt="sm">
        {role}
      </Text>
      <Group gap="sm" align="stretch">
        {series.map(({ title, unit, values, latest }) => (
          <Paper key={title} withBorder p="xs" className="usage">
            <Text size="xs" c="dimmed">
              {title}
            </Text>
            <Text fw={600}>
              {unit === "bytes" ? bytes(latest) : `${latest.toFixed(unit === "%" ? 1 : 0)} ${unit}`}
            </Text>
            <Suspense fallback={null}>
              <Chart
                times={samples.map((it) => it.time)}
                values={values}
                label={`${title} of ${role}`}
                isBytes={unit === "bytes"}
              />
            </Suspense>
          </Paper>
        ))}
      </Group>
    </section>
  );
}
