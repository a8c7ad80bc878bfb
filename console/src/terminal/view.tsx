/** One terminal: xterm.js over the WebSocket of the API. After a dropped connection a new shell is opened. */
import "@xterm/xterm/css/xterm.css";
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import { useEffect, useRef } from "react";
import { sessionPath } from "../api/client";
import { allowStyles } from "./styles";

interface Props {
  sessionId: string;
  role: string;
  isShown: boolean;
}

const RETRY_MS = 1500;
const THEME = { background: "#141517", foreground: "#e9ecef" };

export function TerminalView({ sessionId, role, isShown }: Props) {
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
    const close = connect(terminal, `${sessionPath(sessionId)}/terminal?role=${encodeURIComponent(role)}`);
    const observer = new ResizeObserver(() => fit.fit());
    observer.observe(box.current);
    return () => {
      observer.disconnect();
      close();
      terminal.dispose();
      opened.current = null;
    };
  }, [sessionId, role]);

  useEffect(() => {
    if (!isShown) return;
    opened.current?.fit.fit();
    opened.current?.terminal.focus();
  }, [isShown]);

  return <div ref={box} className="terminal" data-testid={`terminal-${role}`} />;
}

/** Connect a terminal, and connect it again whenever the connection is lost. Returns a function that ends it. */
function connect(terminal: Terminal, path: string): () => void {
  let socket: WebSocket | null = null;
  let timer = 0;
  let isClosed = false;
  let wasLost = false;

  function open(): void {
    const address = new URL(path, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const current = new WebSocket(address);
    socket = current;
    current.binaryType = "arraybuffer";
    current.onopen = () => {
      if (wasLost) terminal.write("\r\n\x1b[2m[connected again, in a new shell]\x1b[0m\r\n");
      wasLost = false;
      current.send(JSON.stringify({ resize: [terminal.cols, terminal.rows] }));
    };
    current.onmessage = ({ data }) => terminal.write(new Uint8Array(data as ArrayBuffer));
    current.onclose = ({ wasClean, code }) => {
      if (isClosed) return;
      if (wasClean && code === 1000) {
        terminal.write("\r\n\x1b[2m[the shell has ended; press Enter for a new one]\x1b[0m\r\n");
        return;
      }
      if (!wasLost) terminal.write("\r\n\x1b[2m[disconnected; trying again]\x1b[0m\r\n");
      wasLost = true;
      timer = window.setTimeout(open, RETRY_MS);
    };
  }

  const encoder = new TextEncoder();
  const input = terminal.onData((text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
    else if (socket?.readyState === WebSocket.CLOSED && !wasLost && text === "\r") open();
  });
  const resize = terminal.onResize(({ cols, rows }) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ resize: [cols, rows] }));
  });
  open();
  return () => {
    isClosed = true;
    window.clearTimeout(timer);
    input.dispose();
    resize.dispose();
    socket?.close();
  };
}
