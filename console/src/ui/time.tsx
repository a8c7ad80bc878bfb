/** Times relative to now, with the exact one on hover. */
import { useInterval } from "@mantine/hooks";
import { useState } from "react";

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** A time as text such as "3 minutes ago" or "in 2 hours". */
export function relativeTime(time: string, now: number): string {
  const seconds = (new Date(time).getTime() - now) / 1000;
  for (const [unit, size] of UNITS)
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  return Math.abs(seconds) < 5 ? "now" : relative.format(Math.trunc(seconds), "second");
}

export function Time({ value }: { value: string | null | undefined }) {
  const [now, setNow] = useState(Date.now);
  useInterval(() => setNow(Date.now()), 10_000, { autoInvoke: true });
  if (!value) return <span>–</span>;
  return (
    <time dateTime={value} title={new Date(value).toLocaleString()}>
      {relativeTime(value, now)}
    </time>
  );
}

/** A duration in milliseconds as text. */
export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${Math.floor(milliseconds / 60_000)} min ${Math.round((milliseconds % 60_000) / 1000)} s`;
}

/** A size in bytes as text. */
export function bytes(size: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  let value = size;
  for (; value >= 1000 && index < units.length - 1; index++) value /= 1000;
  return `${index === 0 ? value : value.toFixed(1)} ${units[index]}`;
}
