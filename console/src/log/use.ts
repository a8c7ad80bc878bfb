/** Opens a log in a component, and again when its filter has changed. */
import { useDebouncedValue } from "@mantine/hooks";
import { useEffect, useRef } from "react";
import type { LogFilter } from "./line";
import type { PagedLog } from "./paged";

const TYPING_MS = 300;

/** `placeOf` reads the place of the linked line from the hash of the address; null if it names no line of this log. */
export function useOpenedLog(
  log: PagedLog,
  filter: LogFilter,
  placeOf: (hash: string) => string | null,
): void {
  const [settled] = useDebouncedValue(filter, TYPING_MS);
  const place = useRef(placeOf(location.hash));
  useEffect(() => {
    log.open(settled, place.current);
    // A search leads to the newest lines that match.
    place.current = null;
    return () => log.close();
  }, [log, settled]);
}
