/** What a visitor of the preview would notice although the app runs, and why a launch waits. */
import { Alert, Text } from "@mantine/core";
import type { Session } from "../api/client";

export function Notices({ session }: { session: Session }) {
  const warnings = session.status === "running" ? session.warnings : [];
  return (
    <>
      {session.waiting && (
        <Alert role="status" color="yellow" my="sm" title="The launch waits for the container engine">
          <Text size="sm">
            It goes on when the engine answers. If it does not until{" "}
            <time dateTime={session.waiting.until}>
              {new Date(session.waiting.until).toLocaleTimeString()}
            </time>
            , the launch fails.
          </Text>
        </Alert>
      )}
      {warnings.map((warning) => (
        <Alert
          key={`${warning.role} ${warning.code}`}
          role="status"
          color="yellow"
          my="sm"
          data-testid="warning"
          title={
            <>
              {warning.role}: <code>{warning.code}</code>
            </>
          }
        >
          <Text size="sm" className="wrapped">
            {warning.message}
          </Text>
          {warning.hint && (
            <Text size="sm" className="wrapped">
              {warning.hint}
            </Text>
          )}
        </Alert>
      ))}
    </>
  );
}
