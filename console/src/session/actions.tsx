/** What can be done with a session as a whole. */
import { Button, Group, Menu, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, json, type Session, sessionPath, unwrap } from "../api/client";
import { EXCLUDED_NAMES } from "../files/excluded";
import { sessionKey } from "../sessions/live";
import { useConfirm } from "../ui/confirm";

/** A POST to a session whose answer is the session. */
export function useSessionAction(id: string, action: "relaunch" | "recover" | "renew", body?: object) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () =>
      json<Session>(`${sessionPath(id)}/${action}`, {
        method: "POST",
        ...(body ? { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : {}),
      }),
    onSuccess: (session) => queries.setQueryData(sessionKey(id), session),
    onError: () => queries.invalidateQueries({ queryKey: sessionKey(id) }),
  });
}

export function SessionActions({ session }: { session: Session }) {
  const id = session.session_id;
  const queries = useQueryClient();
  const { confirm, dialog } = useConfirm();
  const relaunch = useSessionAction(id, "relaunch");
  const renew = useSessionAction(id, "renew", { seconds: 3600 });
  const end = useMutation({
    mutationFn: () =>
      unwrap(api.DELETE("/api/v1/sessions/{session_id}", { params: { path: { session_id: id } } })),
    onSuccess: (ended) => queries.setQueryData(sessionKey(id), ended),
  });
  const error = relaunch.error ?? renew.error ?? end.error;
  if (session.status === "terminated") return null;
  return (
    <Group gap="xs">
      {error && (
        <Text size="sm" c="red" role="alert">
          {error.message}
        </Text>
      )}
      <Button
        size="xs"
        variant="default"
        loading={relaunch.isPending}
        disabled={session.status === "creating"}
        onClick={() => relaunch.mutate()}
      >
        Relaunch
      </Button>
      <Button size="xs" variant="default" loading={renew.isPending} onClick={() => renew.mutate()}>
        Keep one hour longer
      </Button>
      <Download session={session} />
      <Button
        size="xs"
        color="red"
        variant="outline"
        loading={end.isPending}
        onClick={async () => {
          if (await confirm("End this session?", "Its containers and files are removed.", "End"))
            end.mutate();
        }}
      >
        End
      </Button>
      {dialog}
    </Group>
  );
}

/** The workspace of each role as an archive: with everything, or without what an installation generates. */
function Download({ session }: { session: Session }) {
  const roles = Object.keys(session.containers);
  if (roles.length === 0) return null;
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <Button size="xs" variant="default">
          Download
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        {roles.flatMap((role) => [
          <Menu.Item
            key={role}
            component="a"
            href={archivePath(session.session_id, role, EXCLUDED_NAMES)}
            download
          >
            {`Files of ${role}`}
          </Menu.Item>,
          <Menu.Item
            key={`${role} all`}
            component="a"
            href={archivePath(session.session_id, role, [])}
            download
          >
            {`Files of ${role}, with node_modules, .git and the like`}
          </Menu.Item>,
        ])}
      </Menu.Dropdown>
    </Menu>
  );
}

function archivePath(id: string, role: string, exclude: Iterable<string>): string {
  const query = new URLSearchParams([["role", role], ...[...exclude].map((name) => ["exclude", name])]);
  return `${sessionPath(id)}/files/archive?${query}`;
}
