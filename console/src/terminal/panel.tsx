/**
 * Terminals in the containers of a session: several, in tabs, each with a shell of its own. The browser's tab remembers
 * them, so that they are there again after the page has been loaded anew.
 */
import { Button, Group, NativeSelect, Tabs, Text } from "@mantine/core";
import { useCallback, useEffect, useRef, useState } from "react";
import type { Session } from "../api/client";
import { newKey } from "../api/keys";
import { Empty } from "../ui/states";
import { TerminalView } from "./view";

interface Opened {
  number: number;
  role: string;
  /** Its name in the API. */
  name: string;
}

/** The terminals that this tab of the browser had open, of roles that there are. */
export function remembered(sessionId: string, roles: string[]): Opened[] {
  try {
    const found = JSON.parse(sessionStorage.getItem(storageKey(sessionId)) ?? "[]") as Opened[];
    return found.filter(({ role }) => roles.includes(role));
  } catch {
    return [];
  }
}

function storageKey(sessionId: string): string {
  return `terminals ${sessionId}`;
}

function initial(sessionId: string, roles: string[]): Opened[] {
  const before = remembered(sessionId, roles);
  if (before.length > 0) return before;
  return roles[0] ? [{ number: 1, role: roles[0], name: newKey() }] : [];
}

export default function TerminalPanel({ session, isShown }: { session: Session; isShown: boolean }) {
  const roles = Object.keys(session.containers);
  const [role, setRole] = useState(roles[0] ?? "");
  const id = session.session_id;
  const [opened, setOpened] = useState<Opened[]>(() => initial(id, roles));
  const [chosen, setChosen] = useState(() => String(opened[0]?.number ?? ""));
  const closed = useRef(new Set<string>());
  const isClosed = useCallback((name: string) => closed.current.has(name), []);
  useEffect(() => sessionStorage.setItem(storageKey(id), JSON.stringify(opened)), [id, opened]);

  function open(): void {
    const number = Math.max(0, ...opened.map((it) => it.number)) + 1;
    setOpened([...opened, { number, role: role || (roles[0] ?? ""), name: newKey() }]);
    setChosen(String(number));
  }

  function close(number: number): void {
    for (const it of opened) if (it.number === number) closed.current.add(it.name);
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
        {opened.map(({ number, role: of, name }) => (
          <Tabs.Panel key={number} value={String(number)}>
            <TerminalView
              sessionId={id}
              role={of}
              name={name}
              isClosed={isClosed}
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
