/** The command palette: pages and sessions by name. */
import { Modal, NavLink, ScrollArea, Text, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type KeyboardEvent, useState } from "react";
import { useLocation } from "wouter";
import { caller } from "../api/caller";
import type { Session } from "../api/client";
import { platformPages } from "../platform/pages";
import { sessionName } from "../sessions/names";

interface Command {
  label: string;
  description: string;
  href: string;
}

function commands(sessions: Session[]): Command[] {
  const pages = platformPages.filter((page) => caller.isAdmin || !page.isAdminOnly);
  return [
    { label: "New session", description: "Page", href: "/new" },
    { label: "Sessions", description: "Page", href: "/" },
    ...(caller.isAdmin ? [{ label: "Recovery", description: "Page", href: "/recovery" }] : []),
    ...pages.map(({ name, title }) => ({ label: title, description: "Page", href: `/platform/${name}` })),
    ...sessions.map((session) => ({
      label: sessionName(session),
      description: `${session.status}, ${session.session_id}`,
      href: `/sessions/${session.session_id}`,
    })),
  ];
}

export function CommandPalette({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Commands" closeButtonProps={{ "aria-label": "Close" }}>
      <Choices onClose={onClose} />
    </Modal>
  );
}

function Choices({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [index, setIndex] = useState(0);
  const [, go] = useLocation();
  const sessions = useQueryClient().getQueryData<Session[]>(["sessions"]) ?? [];
  const wanted = text.toLowerCase();
  const found = commands(sessions)
    .filter(({ label, description }) => `${label} ${description}`.toLowerCase().includes(wanted))
    .slice(0, 20);

  function choose(command: Command | undefined): void {
    if (!command) return;
    onClose();
    go(command.href);
  }

  function onKey(event: KeyboardEvent): void {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setIndex((index + step + found.length) % Math.max(found.length, 1));
    } else if (event.key === "Enter") choose(found[index]);
  }

  return (
    <>
      <TextInput
        data-autofocus
        aria-label="Find a page or session"
        placeholder="Find a page or session"
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setIndex(0);
        }}
        onKeyDown={onKey}
      />
      <ScrollArea.Autosize mah={360} mt="xs">
        {found.map((command, place) => (
          <NavLink
            key={command.href}
            component="button"
            type="button"
            label={command.label}
            description={command.description}
            active={place === index}
            onClick={() => choose(command)}
          />
        ))}
        {found.length === 0 && (
          <Text size="sm" c="dimmed" p="sm">
            Nothing matches.
          </Text>
        )}
      </ScrollArea.Autosize>
    </>
  );
}
