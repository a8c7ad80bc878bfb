/** The preview in a frame: address, back, reload, widths, ports, and a link to a tab of its own. */
import {
  ActionIcon,
  Alert,
  Button,
  Group,
  NativeSelect,
  SegmentedControl,
  Text,
  TextInput,
} from "@mantine/core";
import { type FormEvent, useRef, useState } from "react";
import type { Session } from "../api/client";
import { previewAddress, safeUrl } from "./address";
import { PreviewProblems } from "./problems";

const WIDTHS: Record<string, number | null> = { Full: null, Tablet: 768, Phone: 390 };

export function PreviewPanel({ session }: { session: Session }) {
  const signed = session.status === "running" ? safeUrl(session.preview_url) : null;
  if (!signed) return null;
  // Another launch of the session has another app, so the frame starts anew.
  return <Preview key={session.pipeline_run_id} session={session} signed={signed} />;
}

function Preview({ session, signed }: { session: Session; signed: URL }) {
  // The link leads to the path where the app has a page, which need not be `/`.
  const [visited, setVisited] = useState<string[]>([signed.pathname]);
  const [text, setText] = useState(signed.pathname);
  const [port, setPort] = useState<number | null>(null);
  const [width, setWidth] = useState("Full");
  const [count, setCount] = useState(0);
  const frame = useRef<HTMLIFrameElement>(null);
  const path = visited.at(-1) ?? signed.pathname;
  // The link is signed anew from time to time; the frame keeps the one that it was opened with.
  const place = `${path} ${port} ${count}`;
  const opened = useRef({ place: "", src: "" });
  if (opened.current.place !== place) opened.current = { place, src: previewAddress(signed, path, port) };

  function open(event: FormEvent): void {
    event.preventDefault();
    const next = `/${text.replace(/^\/+/, "")}`;
    setText(next);
    if (next === path) setCount(count + 1);
    else setVisited([...visited, next]);
  }

  function back(): void {
    const rest = visited.slice(0, -1);
    setVisited(rest);
    setText(rest.at(-1) ?? signed.pathname);
  }

  const ports = [session.preview_port, session.backend_port].filter((it) => it !== null);
  return (
    <section aria-label="Preview" className="preview">
      <form onSubmit={open}>
        <Group gap={6} wrap="nowrap" mb={6}>
          <ActionIcon variant="default" aria-label="Back" disabled={visited.length < 2} onClick={back}>
            ←
          </ActionIcon>
          <ActionIcon variant="default" aria-label="Reload the preview" onClick={() => setCount(count + 1)}>
            ↻
          </ActionIcon>
          <TextInput
            size="xs"
            aria-label="Address in the preview"
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            className="grow"
          />
          {new Set(ports).size > 1 && (
            <NativeSelect
              size="xs"
              aria-label="Port"
              value={port ?? session.preview_port ?? ""}
              data={[...new Set(ports)].map(String)}
              onChange={(event) => {
                const chosen = Number(event.currentTarget.value);
                setPort(chosen === session.preview_port ? null : chosen);
              }}
            />
          )}
        </Group>
        <Group gap={6} mb={6}>
          <SegmentedControl
            size="xs"
            aria-label="Width"
            data={Object.keys(WIDTHS)}
            value={width}
            onChange={setWidth}
          />
          <Button
            component="a"
            size="compact-xs"
            variant="subtle"
            href={previewAddress(signed, path, port)}
            target="_blank"
            rel="noopener noreferrer"
          >
            Open in a new tab
          </Button>
        </Group>
      </form>
      {session.preview_frame_refusal ? (
        <Alert color="yellow" title="The app forbids other pages to show it in a frame">
          <Text size="sm" className="wrapped">
            It answers with <code>{session.preview_frame_refusal}</code>. Open it in a new tab.
          </Text>
        </Alert>
      ) : (
        <div className="preview-frame">
          <iframe
            key={place}
            ref={frame}
            title="Preview of the app"
            src={opened.current.src}
            style={{ width: WIDTHS[width] ?? "100%" }}
            referrerPolicy="no-referrer"
            sandbox="allow-scripts allow-same-origin allow-forms allow-popups allow-modals allow-downloads"
          />
        </div>
      )}
      <PreviewProblems session={session} frame={frame} origin={new URL(opened.current.src).origin} />
    </section>
  );
}
