/** Text with ANSI escape sequences as styled pieces. Everything but colours and emphasis is left out. */

export interface Piece {
  text: string;
  /** Names of classes in console.css. */
  className: string;
  /** Colours outside of the palette of sixteen. */
  color?: string | undefined;
  background?: string | undefined;
}

interface Style {
  color: string | null;
  background: string | null;
  flags: ReadonlySet<string>;
}

const PLAIN: Style = { color: null, background: null, flags: new Set() };
const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const FLAGS: Record<number, string> = {
  1: "bold",
  2: "dim",
  3: "italic",
  4: "underline",
  7: "inverse",
  9: "strike",
};
const OFF: Record<number, string[]> = {
  22: ["bold", "dim"],
  23: ["italic"],
  24: ["underline"],
  27: ["inverse"],
  29: ["strike"],
};
// A control sequence; an operating system command; any other escape sequence of two characters.
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with a control character
const SEQUENCE = /\x1b\[([0-9;:?]*)([ -/]*[@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is to be removed
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/g;

/** What a terminal would show of a line: after a carriage return, the text is written over from the start. */
export function overwritten(line: string): string {
  if (!line.includes("\r")) return line;
  const parts = line.split("\r").filter((part) => part !== "");
  return parts.at(-1) ?? "";
}

/** The line without escape sequences, as search and copying see it. */
export function plainText(line: string): string {
  return overwritten(line).replace(SEQUENCE, "").replace(CONTROLS, "");
}

/** The line as pieces of one style each. */
export function ansiPieces(line: string): Piece[] {
  const text = overwritten(line);
  const pieces: Piece[] = [];
  let style = PLAIN;
  let from = 0;
  function add(until: number): void {
    const piece = text.slice(from, until).replace(CONTROLS, "");
    if (piece) pieces.push(toPiece(piece, style));
  }
  for (const match of text.matchAll(SEQUENCE)) {
    add(match.index);
    from = match.index + match[0].length;
    if (match[2] === "m") style = styleAfter(style, match[1] ?? "");
  }
  add(text.length);
  return pieces;
}

function toPiece(text: string, { color, background, flags }: Style): Piece {
  const classes = [...flags].map((flag) => `ansi-${flag}`);
  const piece: Piece = { text, className: "" };
  if (color?.startsWith("#")) piece.color = color;
  else if (color) classes.push(`ansi-${color}`);
  if (background?.startsWith("#")) piece.background = background;
  else if (background) classes.push(`ansi-on-${background}`);
  piece.className = classes.join(" ");
  return piece;
}

function styleAfter(style: Style, parameters: string): Style {
  const numbers = parameters.split(/[;:]/).map((text) => Number(text) || 0);
  let next = style;
  for (let index = 0; index < numbers.length; index++) {
    const number = numbers[index] ?? 0;
    if (number === 38 || number === 48) {
      const [color, used] = extendedColor(numbers.slice(index + 1));
      index += used;
      next = number === 38 ? { ...next, color } : { ...next, background: color };
    } else next = afterNumber(next, number);
  }
  return next;
}

function afterNumber(style: Style, number: number): Style {
  if (number === 0) return PLAIN;
  const flag = FLAGS[number];
  if (flag) return { ...style, flags: new Set([...style.flags, flag]) };
  const off = OFF[number];
  if (off) return { ...style, flags: new Set([...style.flags].filter((it) => !off.includes(it))) };
  if (number >= 30 && number <= 37) return { ...style, color: NAMES[number - 30] ?? null };
  if (number >= 90 && number <= 97) return { ...style, color: `bright-${NAMES[number - 90]}` };
  if (number >= 40 && number <= 47) return { ...style, background: NAMES[number - 40] ?? null };
  if (number >= 100 && number <= 107) return { ...style, background: NAMES[number - 100] ?? null };
  if (number === 39) return { ...style, color: null };
  if (number === 49) return { ...style, background: null };
  return style;
}

/** The colour that follows 38 or 48, and how many numbers it took. */
function extendedColor(numbers: number[]): [string | null, number] {
  const [kind, first = 0, green = 0, blue = 0] = numbers;
  if (kind === 2) return [hex(first, green, blue), 4];
  if (kind !== 5) return [null, 1];
  if (first < 8) return [NAMES[first] ?? null, 2];
  if (first < 16) return [`bright-${NAMES[first - 8]}`, 2];
  if (first >= 232) return [hex(...gray(first)), 2];
  const cube = first - 16;
  const level = (part: number) => (part === 0 ? 0 : 55 + part * 40);
  return [hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)), 2];
}

function gray(index: number): [number, number, number] {
  const level = 8 + (index - 232) * 10;
  return [level, level, level];
}

function hex(...parts: number[]): string {
  return `#${parts.map((part) => Math.min(255, part).toString(16).padStart(2, "0")).join("")}`;
}
