/**
 * A terminal over the WebSocket of the API, connected again whenever the connection is lost.
 *
 * The shell goes on meanwhile. The number of bytes that were received is sent with a new connection, so that the output
 * continues where it broke off.
 */
import type { Terminal } from "@xterm/xterm";

/** The shell has ended, or this page has closed the terminal. */
const OVER = 1000;
/** Another connection has the terminal. */
const TAKEN_OVER = 4000;
const RETRY_MS = 1500;

/** The part of xterm's Terminal that is used here. */
export type Screen = Pick<Terminal, "cols" | "rows" | "write" | "onData" | "onResize">;

export interface Connection {
  /** Close the connection. The shell goes on for a while. */
  leave: () => void;
  /** Close the connection and the shell. */
  close: () => void;
}

export function connectTerminal(screen: Screen, path: string): Connection {
  let socket: WebSocket | null = null;
  let timer = 0;
  let received = 0;
  let isLeft = false;
  let isLost = false;

  function open(): void {
    const address = new URL(path, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("after", String(received));
    const current = new WebSocket(address);
    socket = current;
    current.binaryType = "arraybuffer";
    current.onopen = () => current.send(JSON.stringify({ resize: [screen.cols, screen.rows] }));
    current.onmessage = ({ data }) => {
      if (typeof data === "string") begin((JSON.parse(data) as { position: number }).position);
      else {
        received += (data as ArrayBuffer).byteLength;
        screen.write(new Uint8Array(data as ArrayBuffer));
      }
    };
    current.onclose = ({ code }) => {
      if (isLeft) return;
      if (code === OVER) {
        received = 0;
        note("the shell has ended; press Enter for a new one");
      } else if (code === TAKEN_OVER)
        note("this terminal is open in another window; press Enter to show it here");
      else {
        if (!isLost) note("disconnected; trying again");
        isLost = true;
        timer = window.setTimeout(open, RETRY_MS);
      }
    };
  }

  function begin(position: number): void {
    if (position < received) note("connected again, in a new shell");
    else if (position > received) note("connected again; older output is not stored any more");
    else if (isLost) note("connected again");
    isLost = false;
    received = position;
  }

  function note(text: string): void {
    screen.write(`\r\n\x1b[2m[${text}]\x1b[0m\r\n`);
  }

  const encoder = new TextEncoder();
  const input = screen.onData((text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
    else if (socket?.readyState === WebSocket.CLOSED && !isLost && text === "\r") open();
  });
  const resize = screen.onResize(({ cols, rows }) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ resize: [cols, rows] }));
  });
  function end(code?: number): void {
    isLeft = true;
    window.clearTimeout(timer);
    input.dispose();
    resize.dispose();
    socket?.close(code);
  }

  open();
  return { leave: () => end(), close: () => end(OVER) };
}
