/** One terminal: xterm.js over the WebSocket of the API. After a dropped connection it goes on with the same shell. */
import "@xterm/xterm/css/xterm.css";
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import { useEffect, useRef } from "react";
import { sessionPath } from "../api/client";
import { connectTerminal } from "./connection";
import { allowStyles } from "./styles";

interface Props {
  sessionId: string;
  role: string;
  /** The terminal's name in the API: a terminal of this name is gone on with. */
  name: string;
  isShown: boolean;
  /** Whether the shell is closed with this view. */
  isClosed: (name: string) => boolean;
}

const THEME = { background: "#141517", foreground: "#e9ecef" };

export function TerminalView({ sessionId, role, name, isShown, isClosed }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const opened = useRef<{ terminal: Terminal; fit: FitAddon } | null>(null);

  useEffect(() => {
    if (!box.current) return;
    allowStyles();
    const terminal = new Terminal({
      screenReaderMode: true,
      fontSize: 13,
      scrollback: 10_000,
      theme: THEME,
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(box.current);
    opened.current = { terminal, fit };
    fit.fit();
    const query = new URLSearchParams({ role, terminal: name });
    const connection = connectTerminal(terminal, `${sessionPath(sessionId)}/terminal?${query}`);
    const observer = new ResizeObserver(() => fit.fit());
    observer.observe(box.current);
    return () => {
      observer.disconnect();
      if (isClosed(name)) connection.close();
      else connection.leave();
      terminal.dispose();
      opened.current = null;
    };
  }, [sessionId, role, name, isClosed]);

  useEffect(() => {
    if (!isShown) return;
    opened.current?.fit.fit();
    opened.current?.terminal.focus();
  }, [isShown]);

  return <div ref={box} className="terminal" data-testid={`terminal-${role}`} />;
}
