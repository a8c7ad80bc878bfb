/** One line of a log: where it comes from, and its text with colours. Nothing that was printed becomes markup. */
import { memo } from "react";
import { ansiPieces } from "./ansi";
import type { Line } from "./line";

interface Props {
  line: Line;
  isLinked: boolean;
  onLink: (id: string) => void;
}

export const LogRow = memo(function LogRow({ line, isLinked, onLink }: Props) {
  return (
    <div className={`log-line ${line.stream}`} data-line={line.id} aria-current={isLinked || undefined}>
      <a
        className="log-time"
        href={`#${line.id}`}
        title={`Link to this line${line.time ? `, ${new Date(line.time).toLocaleString()}` : ""}`}
        onClick={(event) => {
          event.preventDefault();
          onLink(line.id);
        }}
      >
        {line.time ? clock(line.time) : "¶"}
      </a>
      {line.role && <span className="log-role">{line.role}</span>}
      <span className="log-text">
        {ansiPieces(line.text).map(({ text, className, color, background }, index) => (
          // The pieces of a line never change their order.
          // biome-ignore lint/suspicious/noArrayIndexKey: a piece has no identity but its place
          <span key={index} className={className || undefined} style={{ color, backgroundColor: background }}>
            {text}
          </span>
        ))}
      </span>
    </div>
  );
});

function clock(time: string): string {
  const date = new Date(time);
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}
