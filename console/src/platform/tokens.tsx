/** Access tokens: create, list, revoke (admin). A token's value is shown once. */
import { Alert, Button, Code, Group, NativeSelect, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas, unwrap } from "../api/client";
import { useConfirm } from "../ui/confirm";
import { PagedTable, useList } from "../ui/paged";
import { ErrorState } from "../ui/states";
import { Time } from "../ui/time";

const TOKENS = "/api/v1/tokens";

export function Tokens() {
  const list = useList<Schemas["TokenView"]>(TOKENS);
  return (
    <>
      <NewToken />
      <PagedTable
        label="Tokens"
        list={list}
        keyOf={(it) => it.token_id}
        emptyTitle="No tokens"
        columns={[
          { title: "User", cell: (it) => it.user_id },
          { title: "Role", cell: (it) => it.role },
          { title: "Created", cell: (it) => <Time value={it.created_at} /> },
          { title: "Expires", cell: (it) => (it.expires_at ? <Time value={it.expires_at} /> : "never") },
          {
            title: "State",
            cell: (it) =>
              it.revoked_at ? (
                <>
                  revoked <Time value={it.revoked_at} />
                </>
              ) : (
                <Revoke token={it} />
              ),
          },
        ]}
      />
    </>
  );
}

function NewToken() {
  const queries = useQueryClient();
  const [user, setUser] = useState("");
  const [role, setRole] = useState<"user" | "admin">("user");
  const create = useMutation({
    mutationFn: () => unwrap(api.POST("/api/v1/tokens", { body: { user_id: user, role } })),
    onSuccess: () => {
      setUser("");
      void queries.invalidateQueries({ queryKey: ["list", TOKENS] });
    },
  });
  return (
    <>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          create.mutate();
        }}
      >
        <Group gap="xs" mb="sm" align="end">
          <TextInput
            size="xs"
            label="User"
            required
            value={user}
            onChange={(event) => setUser(event.currentTarget.value)}
          />
          <NativeSelect
            size="xs"
            label="Role"
            data={["user", "admin"]}
            value={role}
            onChange={(event) => setRole(event.currentTarget.value as "user" | "admin")}
          />
          <Button size="xs" type="submit" loading={create.isPending}>
            Create a token
          </Button>
        </Group>
      </form>
      {create.error && <ErrorState error={create.error} />}
      {create.data && (
        <Alert color="teal" title={`A token of ${create.data.user_id}`} mb="sm">
          It is shown only here: <Code>{create.data.token}</Code>
        </Alert>
      )}
    </>
  );
}

function Revoke({ token }: { token: Schemas["TokenView"] }) {
  const queries = useQueryClient();
  const { confirm, dialog } = useConfirm();
  const revoke = useMutation({
    mutationFn: () =>
      unwrap(api.DELETE("/api/v1/tokens/{token_id}", { params: { path: { token_id: token.token_id } } })),
    onSettled: () => queries.invalidateQueries({ queryKey: ["list", TOKENS] }),
  });
  return (
    <>
      <Button
        size="compact-xs"
        color="red"
        variant="outline"
        loading={revoke.isPending}
        onClick={async () => {
          if (
            await confirm(
              `Revoke this token of ${token.user_id}?`,
              "Whatever uses it is signed out.",
              "Revoke",
            )
          )
            revoke.mutate();
        }}
      >
        Revoke
      </Button>
      {revoke.error && <ErrorState error={revoke.error} />}
      {dialog}
    </>
  );
}
