import { type ComponentType, lazy } from "react";

const TRIES = 3;
const PAUSE_MS = 700;

/** A component that is loaded when it is first shown. A load that a change of the network interrupts is tried again. */
// biome-ignore lint/suspicious/noExplicitAny: a component with any properties
export function lazyPart<T extends ComponentType<any>>(load: () => Promise<{ default: T }>) {
  return lazy(async () => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await load();
      } catch (error) {
        if (attempt === TRIES) throw error;
        await new Promise((resolve) => window.setTimeout(resolve, PAUSE_MS));
      }
    }
  });
}
