/** Shows that the service does not answer, as long as it does not. Streams report to it, and so do requests. */
import { Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";
import { Unreachable } from "../api/client";

const broken = new Set<string>();
const listeners = new Set<() => void>();

/** Report whether the connection of this name is broken at the moment. */
export function reportConnection(name: string, isBroken: boolean): void {
  if (broken.has(name) === isBroken) return;
  if (isBroken) broken.add(name);
  else broken.delete(name);
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function ConnectionNotice() {
  const queries = useQueryClient();
  useEffect(
    () =>
      queries.getQueryCache().subscribe(({ type, query }) => {
        if (type === "removed") reportConnection(query.queryHash, false);
        const { fetchFailureReason, status } = query.state;
        const failed = fetchFailureReason ?? (status === "error" ? query.state.error : null);
        reportConnection(query.queryHash, failed instanceof Unreachable);
      }),
    [queries],
  );
  const isBroken = useSyncExternalStore(subscribe, () => broken.size > 0);
  return (
    <Text role="status" size="sm" c="orange.8" truncate className="connection">
      {isBroken ? "The service does not answer. This page tries again by itself." : ""}
    </Text>
  );
}
