/** Filters above a list: a choice, a search, and a period. */
import { NativeSelect, TextInput } from "@mantine/core";
import { useDebouncedValue, useHotkeys } from "@mantine/hooks";
import { useEffect, useRef, useState } from "react";

interface ChoiceProps {
  label: string;
  options: string[];
  value: string;
  onChange: (value: string) => void;
}

export function Choice({ label, options, value, onChange }: ChoiceProps) {
  return (
    <NativeSelect
      size="xs"
      aria-label={label}
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
      data={[{ value: "", label: `${label}: all` }, ...options]}
    />
  );
}

const TYPING_MS = 300;

interface SearchProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
}

/** A field whose value is taken over when typing has paused. `/` moves the focus to it. */
export function Search({ label, value, onChange }: SearchProps) {
  const [text, setText] = useState(value);
  const [settled] = useDebouncedValue(text, TYPING_MS);
  const input = useRef<HTMLInputElement>(null);
  const report = useRef(onChange);
  report.current = onChange;
  useHotkeys([["/", () => input.current?.focus()]]);
  useEffect(() => report.current(settled.trim()), [settled]);
  return (
    <TextInput
      ref={input}
      size="xs"
      w={240}
      type="search"
      aria-label={label}
      placeholder={label}
      value={text}
      onChange={(event) => setText(event.currentTarget.value)}
    />
  );
}

const PERIODS: Record<string, number> = { "Last hour": 3600, "Last day": 86_400, "Last week": 604_800 };

/** Returns the start of the chosen period, fixed when it was chosen, and the control. */
export function usePeriod() {
  const [period, setPeriod] = useState("");
  const [from, setFrom] = useState<string | null>(null);
  function choose(next: string): void {
    const seconds = PERIODS[next];
    setPeriod(next);
    setFrom(seconds ? new Date(Date.now() - seconds * 1000).toISOString() : null);
  }
  return {
    from,
    control: <Choice label="Period" options={Object.keys(PERIODS)} value={period} onChange={choose} />,
  };
}
