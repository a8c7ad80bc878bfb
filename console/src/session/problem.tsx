/** Why a session is in `error`, with the next step as a button. */
import { Alert, Button, Group, Text } from "@mantine/core";
import type { Session } from "../api/client";
import { useSessionAction } from "./actions";
import type { Run } from "./launch";

interface Props {
  session: Session;
  run: Run | undefined;
  onShow: (part: string) => void;
}

export function ProblemPanel({ session, run, onShow }: Props) {
  const recover = useSessionAction(session.session_id, "recover");
  const relaunch = useSessionAction(session.session_id, "relaunch");
  const problem = session.status === "error" ? (session.error ?? run?.problem) : null;
  if (!problem) return null;
  // A launch that failed needs another launch; a session that was lost afterwards is recovered on its volumes.
  const hasFailed = problem.stage !== null && problem.stage !== undefined;
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
      <Group gap="xs" mt="sm">
        <Button size="xs" loading={recover.isPending} onClick={() => recover.mutate()}>
          Recover
        </Button>
        <Button size="xs" variant="default" loading={relaunch.isPending} onClick={() => relaunch.mutate()}>
          Relaunch
        </Button>
        <Button size="xs" variant="default" onClick={() => onShow(hasFailed ? "log" : "output")}>
          {hasFailed ? "Show the log" : "Show the output"}
        </Button>
        <Button size="xs" variant="default" onClick={() => onShow("files")}>
          Open the files
        </Button>
      </Group>
    </Alert>
  );
}
