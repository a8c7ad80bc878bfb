/** Why a session is in `error`, with the next step as a button. */
import { Alert, Button, Group, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import type { Session } from "../api/client";
import { plainText } from "../log/ansi";
import type { Line } from "../log/line";
import { lastLines } from "../log/session";
import { ErrorState } from "../ui/states";
import { useSessionAction } from "./actions";
import { placeIn } from "./evidence";
import type { Run } from "./launch";

const SHOWN_LINES = 12;

interface Props {
  session: Session;
  run: Run | undefined;
  onShow: (part: string) => void;
}

export function ProblemPanel({ session, run, onShow }: Props) {
  const recover = useSessionAction(session.session_id, "recover");
  const relaunch = useSessionAction(session.session_id, "relaunch");
  const memory = moreMemory(session);
  const enlarge = useSessionAction(session.session_id, "relaunch", { memory_mb: memory });
  const failed = recover.error ?? relaunch.error ?? enlarge.error;
  const problem = session.status === "error" ? (session.error ?? run?.problem) : null;
  const lines = useLastLines(session.session_id, run, problem?.stage);
  if (!problem) return null;
  // A launch that failed needs another launch; a session that was lost afterwards is recovered on its volumes.
  const hasFailed = problem.stage !== null && problem.stage !== undefined;
  const place = placeIn(lines);
  return (
    <Alert
      role="alert"
      color="red"
      my="sm"
      data-testid="problem"
      title={
        <>
          {hasFailed ? `The launch failed at ${problem.stage}` : "The session was lost"}:{" "}
          <code>{problem.code}</code>
        </>
      }
    >
      <Text size="sm" className="wrapped">
        {problem.message}
      </Text>
      {problem.hint && (
        <Text size="sm" className="wrapped">
          {problem.hint}
        </Text>
      )}
      {lines.length > 0 && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: text that scrolls has to be reachable by keyboard
        <pre className="evidence" tabIndex={0}>
          {lines.map((line) => plainText(line.text)).join("\n")}
        </pre>
      )}
      {failed && <ErrorState error={failed} />}
      <Group gap="xs" mt="sm">
        {problem.code === "out_of_memory" && memory !== null && (
          <Button size="xs" loading={enlarge.isPending} onClick={() => enlarge.mutate()}>
            Relaunch with {memory} MiB
          </Button>
        )}
        <Button size="xs" loading={recover.isPending} onClick={() => recover.mutate()}>
          Recover
        </Button>
        <Button size="xs" variant="default" loading={relaunch.isPending} onClick={() => relaunch.mutate()}>
          Relaunch
        </Button>
        <Button size="xs" variant="default" onClick={() => onShow(hasFailed ? "log" : "output")}>
          {hasFailed ? "Show the log" : "Show the output"}
        </Button>
        {place ? (
          <Button
            size="xs"
            variant="default"
            component={Link}
            href={`/sessions/${session.session_id}/files?${new URLSearchParams({ ...place, line: String(place.line) })}`}
          >
            Open {place.path}, line {place.line}
          </Button>
        ) : (
          <Button size="xs" variant="default" onClick={() => onShow("files")}>
            Open the files
          </Button>
        )}
        {session.project_id && (
          <Button
            size="xs"
            variant="default"
            component={Link}
            href={`/new?${new URLSearchParams({ project: session.project_id })}`}
          >
            Edit the plan
          </Button>
        )}
      </Group>
    </Alert>
  );
}

/** The last lines that the failed stage of a run printed. */
function useLastLines(id: string, run: Run | undefined, stage: string | null | undefined): Line[] {
  const found = useQuery({
    queryKey: ["last lines", id, run?.id, stage],
    queryFn: () => lastLines(id, run?.id ?? "", stage ?? "", SHOWN_LINES),
    enabled: Boolean(run && stage),
  });
  return found.data ?? [];
}

/** Twice the memory that the containers have, as far as the operator allows more; null if not. */
export function moreMemory({ memory_mb: now, memory_max_mb: most }: Session): number | null {
  return now < most ? Math.min(now * 2, most) : null;
}
