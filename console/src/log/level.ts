/** The level of a line that a program printed, read from its text: the same rule as sandbox/domain/levels.py. */
import { plainText } from "./ansi";

export const LEVELS = ["debug", "info", "warning", "error"] as const;
export type Level = (typeof LEVELS)[number];

const WORDS: Record<Level, string[]> = {
  debug: ["trace", "debug", "verbose"],
  info: ["info", "notice"],
  warning: ["warn", "warning"],
  error: ["err", "error", "critical", "fatal", "panic", "exception", "traceback"],
};
const LOOKED_AT = 100;
const WORD = new RegExp(`\\b(${Object.values(WORDS).flat().join("|")})\\b`);

/** Whether a line has a level, and it is at least this one. */
export function isAtLeast(text: string, level: Level): boolean {
  const word = WORD.exec(
    plainText(text.slice(0, 2 * LOOKED_AT))
      .slice(0, LOOKED_AT)
      .toLowerCase(),
  )?.[1];
  if (!word) return false;
  return LEVELS.slice(LEVELS.indexOf(level)).some((name) => WORDS[name].includes(word));
}
