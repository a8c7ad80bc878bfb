/** A status as a word with a colour. The word alone says what the status is. */

const TONES: Record<string, string[]> = {
  good: ["ready", "running", "completed", "passed", "healthy", "resolved", "success", "ok", "done"],
  bad: ["error", "failed", "critical", "timeout"],
  warn: ["warning", "acknowledged", "open", "high"],
  busy: ["creating", "started"],
};

export function Status({ value }: { value: string | null | undefined }) {
  if (!value) return <span>–</span>;
  const tone = Object.keys(TONES).find((name) => TONES[name]?.includes(value.toLowerCase()));
  return (
    <span className="status" data-tone={tone}>
      {value}
    </span>
  );
}
