/**
 * A log: rows of any height drawn on demand, followed or held, searched, filtered, linked to, downloaded.
 *
 * The list has the role `log` but is not a live region: a list that is drawn on demand would be read again with every
 * scroll. New lines are spoken through a region of its own while the log is followed.
 */
import { Button, Group, Text } from "@mantine/core";
import { useHotkeys } from "@mantine/hooks";
import { useVirtualizer } from "@tanstack/react-virtual";
import {
  type ReactNode,
  type RefObject,
  useCallback,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { ErrorState } from "../ui/states";
import { plainText } from "./ansi";
import { FilterBar } from "./filters";
import { isUnfiltered, type Line, type LogFilter } from "./line";
import type { PagedLog } from "./paged";
import { LogRow } from "./row";

interface Props {
  log: PagedLog;
  label: string;
  filter: LogFilter;
  onFilter: (filter: LogFilter) => void;
  roles: string[];
  stages: string[];
  /** Runs, oldest first, with their labels. */
  runs: { id: string; label: string }[];
  streams: string[];
  downloadHref: string;
  /** Shown while there are no lines. */
  empty: ReactNode;
  /** Shown beside the filters. */
  children?: ReactNode;
}

const ROW_PX = 20;
const AT_END_PX = 30;
/** Older lines are read when fewer than these are above. */
const PAGE_PX = 600;

export function LogViewer(props: Props) {
  const { log } = props;
  useSyncExternalStore(log.subscribe, log.snapshot);
  const lines = log.lines;
  const box = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW_PX,
    getItemKey: (index) => lines[index]?.id ?? index,
    overscan: 20,
  });
  const { isFollowing, setFollowing, missed, onScroll } = useFollowing(box, lines, rows.scrollToIndex, log);
  const { linked, link } = useLinkedLine(lines, rows.scrollToIndex, () => setFollowing(false));
  useAnchor(box, lines, isFollowing);
  const search = useRef<HTMLInputElement>(null);
  useHotkeys([
    ["/", () => search.current?.focus()],
    ["f", () => setFollowing(!isFollowing)],
  ]);

  return (
    <section className="log" aria-label={props.label}>
      <Group gap="xs" mb={6} align="end">
        <FilterBar {...props} searchRef={search} />
        <Text size="xs" c="dimmed" aria-live="off">
          {log.isLoading ? "Reading… " : ""}
          {lines.length.toLocaleString("en")} lines
          {log.hasOlder ? ", older ones above" : ""}
        </Text>
        <Group gap="xs" ml="auto">
          {props.children}
          <CopyLines lines={lines} />
          <Button component="a" href={props.downloadHref} download size="compact-xs" variant="default">
            Download
          </Button>
          <Button
            size="compact-xs"
            variant={isFollowing ? "filled" : "default"}
            aria-pressed={isFollowing}
            onClick={() => setFollowing(!isFollowing)}
          >
            {followLabel(isFollowing, missed, log.hasNewer)}
          </Button>
        </Group>
      </Group>
      <div
        ref={box}
        className="log-box"
        role="log"
        aria-live="off"
        aria-label={props.label}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls has to be reachable by keyboard
        tabIndex={0}
        onScroll={onScroll}
      >
        {lines.length === 0 && !log.isLoading && !log.error && (
          <div className="log-empty">{isUnfiltered(props.filter) ? props.empty : "No line matches."}</div>
        )}
        <div className="log-rows" style={{ height: rows.getTotalSize() }}>
          {rows.getVirtualItems().map(({ key, index, start }) => {
            const line = lines[index];
            if (!line) return null;
            return (
              <div
                key={key}
                ref={rows.measureElement}
                data-index={index}
                className="log-row"
                style={{ transform: `translateY(${start}px)` }}
              >
                <LogRow line={line} isLinked={line.id === linked} onLink={link} />
              </div>
            );
          })}
        </div>
      </div>
      {log.error && <ErrorState error={log.error} onRetry={log.toEnd} />}
      <Spoken lines={lines} isFollowing={isFollowing} />
    </section>
  );
}

type ScrollToIndex = (index: number, options?: { align?: "center" | "end" }) => void;

/** Scroll to the newest line while the log is followed; hold when the reader scrolls up, and count what came since. */
function useFollowing(
  box: RefObject<HTMLDivElement | null>,
  lines: Line[],
  scrollToIndex: ScrollToIndex,
  log: PagedLog,
) {
  // A link to a line leads to that line, not to the end.
  const [isFollowing, setFollowing] = useState(() => location.hash === "");
  const [heldAt, setHeldAt] = useState(0);
  const lastTop = useRef(0);
  const isUpwards = useRef(false);
  const count = lines.length;

  const follow = useCallback(
    (next: boolean) => {
      setFollowing(next);
      setHeldAt(count);
      if (next && log.hasNewer) log.toEnd();
      else if (next && count > 0) scrollToIndex(count - 1, { align: "end" });
    },
    [count, scrollToIndex, log],
  );

  useEffect(() => {
    if (isFollowing && count > 0) scrollToIndex(count - 1, { align: "end" });
  }, [isFollowing, count, scrollToIndex]);

  const readMore = useCallback(() => {
    const element = box.current;
    if (!element) return;
    if (isUpwards.current && element.scrollTop < PAGE_PX) log.loadOlder();
    if (log.hasNewer && isScrolledToEnd(element)) log.loadNewer();
  }, [box, log]);

  // One page is read at a time. A reader who reached the first or last line meanwhile cannot scroll any further, so no
  // scrolling would ask for the next page.
  const isIdle = !log.isLoading && !log.error;
  useEffect(() => {
    if (isIdle) readMore();
  }, [isIdle, readMore]);

  function onScroll(): void {
    const element = box.current;
    if (!element) return;
    const isAtEnd = isScrolledToEnd(element);
    isUpwards.current = element.scrollTop < lastTop.current - 2;
    lastTop.current = element.scrollTop;
    readMore();
    if (isFollowing && isUpwards.current && !isAtEnd) {
      setFollowing(false);
      setHeldAt(count);
    } else if (!isFollowing && isAtEnd && !isUpwards.current && !log.hasNewer && location.hash === "")
      setFollowing(true);
  }

  return { isFollowing, setFollowing: follow, missed: Math.max(0, count - heldAt), onScroll };
}

function isScrolledToEnd(element: HTMLElement): boolean {
  return element.scrollHeight - element.scrollTop - element.clientHeight < AT_END_PX;
}

/** Keep the line that is read in its place when older lines are put above it, or dropped there. */
function useAnchor(box: RefObject<HTMLDivElement | null>, lines: Line[], isFollowing: boolean): void {
  const before = useRef<Line[]>([]);
  useLayoutEffect(() => {
    const [first] = lines;
    const [earlier] = before.current;
    if (box.current && first && earlier && !isFollowing && first !== earlier) {
      const added = lines.indexOf(earlier);
      const dropped = added < 0 ? Math.max(before.current.indexOf(first), 0) : 0;
      box.current.scrollTop += (Math.max(added, 0) - dropped) * ROW_PX;
    }
    before.current = lines;
  }, [box, lines, isFollowing]);
}

/** The line that the address names: scrolled to once it is there. */
function useLinkedLine(lines: Line[], scrollToIndex: ScrollToIndex, hold: () => void) {
  const [linked, setLinked] = useState(() => location.hash.slice(1));
  const shown = useRef("");
  const onHold = useRef(hold);
  onHold.current = hold;
  useEffect(() => {
    if (!linked || shown.current === linked) return;
    const index = lines.findIndex((line) => line.id === linked);
    if (index < 0) return;
    shown.current = linked;
    onHold.current();
    scrollToIndex(index, { align: "center" });
  }, [linked, lines, scrollToIndex]);

  const link = useCallback((id: string) => {
    history.replaceState(history.state, "", `#${id}`);
    shown.current = id;
    setLinked(id);
    onHold.current();
    void navigator.clipboard?.writeText(location.href).catch(() => {});
  }, []);
  return { linked, link };
}

const SPOKEN_MS = 2000;
const SPOKEN_LINES = 3;

/** Announces the newest lines to screen readers at intervals, while the log is followed. */
function Spoken({ lines, isFollowing }: { lines: Line[]; isFollowing: boolean }) {
  const [text, setText] = useState("");
  const latest = useRef(lines);
  latest.current = lines;
  useEffect(() => {
    if (!isFollowing) return;
    let seen = latest.current.at(-1)?.id;
    const timer = window.setInterval(() => {
      const newest = latest.current.at(-1)?.id;
      if (newest === seen) return;
      seen = newest;
      setText(
        latest.current
          .slice(-SPOKEN_LINES)
          .map((line) => plainText(line.text))
          .join("\n"),
      );
    }, SPOKEN_MS);
    return () => window.clearInterval(timer);
  }, [isFollowing]);
  return (
    <div className="spoken" aria-live={isFollowing ? "polite" : "off"} data-testid="spoken">
      {isFollowing ? text : ""}
    </div>
  );
}

function CopyLines({ lines }: { lines: Line[] }) {
  const [isCopied, setCopied] = useState(false);
  async function copy(): Promise<void> {
    await navigator.clipboard.writeText(lines.map((line) => plainText(line.text)).join("\n"));
    setCopied(true);
    window.setTimeout(() => setCopied(false), 2000);
  }
  return (
    <Button
      size="compact-xs"
      variant="default"
      disabled={lines.length === 0 || !navigator.clipboard}
      onClick={copy}
    >
      {isCopied ? "Copied" : "Copy"}
    </Button>
  );
}

function followLabel(isFollowing: boolean, missed: number, hasNewer: boolean): string {
  if (isFollowing) return "Following";
  if (hasNewer) return "Latest";
  return missed > 0 ? `Latest (${missed} new)` : "Follow";
}
