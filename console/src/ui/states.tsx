/** What is shown in place of data: loading, nothing there, an error, not found. */
import { Alert, Button, Center, Loader, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "wouter";
import { Problem } from "../api/client";

export function PageLoading() {
  return (
    <Center mih={200} role="status" aria-label="Loading">
      <Loader />
    </Center>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <Stack align="center" gap="xs" py="xl">
      <Text fw={600}>{title}</Text>
      <Text c="dimmed" size="sm" component="div" ta="center">
        {children}
      </Text>
    </Stack>
  );
}

export function NotFound({ what }: { what: string }) {
  return (
    <Stack align="center" gap="sm" py="xl">
      <Title order={1} size="h3">
        There is no such {what}
      </Title>
      <Text c="dimmed" size="sm">
        It may have been removed, or it belongs to another user.
      </Text>
      <Button component={Link} href="/" variant="default">
        All sessions
      </Button>
    </Stack>
  );
}

/** An error with its code, cause and hint, and a button that tries again. */
export function ErrorState({ error, onRetry }: { error: Error; onRetry?: () => void }) {
  const code = error instanceof Problem ? error.code : "";
  const isForbidden = error instanceof Problem && error.status === 403;
  return (
    <Alert
      color={isForbidden ? "gray" : "red"}
      title={isForbidden ? "You may not see this" : "This did not work"}
      role="alert"
    >
      <Text size="sm">{error.message}</Text>
      {error instanceof Problem && error.hint && <Text size="sm">{error.hint}</Text>}
      {code && (
        <Text size="xs" ff="monospace" mt={4}>
          {code}
        </Text>
      )}
      {onRetry && !isForbidden && (
        <Button size="xs" variant="default" mt="sm" onClick={onRetry}>
          Try again
        </Button>
      )}
    </Alert>
  );
}
