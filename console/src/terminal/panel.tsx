/** Terminals in the containers of a session: several, in tabs, each with a shell of its own. */
import { Button, Group, NativeSelect, Tabs, Text } from "@mantine/core";
import { useState } from "react";
import type { Session } from "../api/client";
import { Empty } from "../ui/states";
import { TerminalView } from "./view";

interface Opened {
  number: number;
  role: string;
}

export default function TerminalPanel({ session, isShown }: { session: Session; isShown: boolean }) {
  const roles = Object.keys(session.containers);
  const [role, setRole] = useState(roles[0] ?? "");
  const [opened, setOpened] = useState<Opened[]>(() => (roles[0] ? [{ number: 1, role: roles[0] }] : []));
  const [chosen, setChosen] = useState("1");

  function open(): void {
    const number = Math.max(0, ...opened.map((it) => it.number)) + 1;
    setOpened([...opened, { number, role: role || (roles[0] ?? "") }]);
    setChosen(String(number));
  }

  function close(number: number): void {
    const rest = opened.filter((it) => it.number !== number);
    setOpened(rest);
    if (chosen === String(number)) setChosen(String(rest.at(-1)?.number ?? ""));
  }

  if (roles.length === 0)
    return <Empty title="There is no container yet">Wait for the stage containers.</Empty>;
  return (
    <>
      <Group gap="xs" mb={6}>
        {roles.length > 1 && (
          <NativeSelect
            size="xs"
            aria-label="Role of a new terminal"
            data={roles}
            value={role}
            onChange={(event) => setRole(event.currentTarget.value)}
          />
        )}
        <Button size="compact-sm" variant="default" onClick={open}>
          New terminal
        </Button>
        {opened.length > 0 && (
          <Button size="compact-sm" variant="default" onClick={() => close(Number(chosen))}>
            Close terminal
          </Button>
        )}
      </Group>
      <Tabs value={chosen} onChange={(next) => next && setChosen(next)} variant="outline">
        <Tabs.List>
          {opened.map(({ number, role: of }) => (
            <Tabs.Tab key={number} value={String(number)}>
              {of} {number}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {opened.map(({ number, role: of }) => (
          <Tabs.Panel key={number} value={String(number)}>
            <TerminalView
              sessionId={session.session_id}
              role={of}
              isShown={isShown && chosen === String(number)}
            />
          </Tabs.Panel>
        ))}
      </Tabs>
      {opened.length === 0 && (
        <Text size="sm" c="dimmed">
          No terminal is open.
        </Text>
      )}
    </>
  );
}
