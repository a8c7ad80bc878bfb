/** A table of a list of the API: page by page, with the states of loading, nothing there and errors. */
import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { json } from "../api/client";
import { Empty, ErrorState, PageLoading } from "./states";
import { type Column, DataTable } from "./table";

interface ListPage<T> {
  items: T[];
  next_cursor: string | null;
}

/** The path of a list with its filters; those without a value are left out. */
export function listPath(path: string, filters: Record<string, string | number | null | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filters))
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The items of a list, page by page. `refreshMs` reads it again at that interval. */
export function useList<T>(
  path: string,
  filters: Record<string, string | number | null | undefined> = {},
  refreshMs: number | false = false,
) {
  const query = useInfiniteQuery({
    queryKey: ["list", path, filters],
    queryFn: ({ pageParam }) =>
      json<ListPage<T>>(listPath(path, { limit: 100, ...filters, cursor: pageParam })),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor,
    refetchInterval: refreshMs,
  });
  return { query, items: query.data?.pages.flatMap((page) => page.items) ?? [] };
}

interface Props<T> {
  label: string;
  list: ReturnType<typeof useList<T>>;
  columns: Column<T>[];
  keyOf: (item: T) => string | number;
  /** The title shown when there are no items. */
  emptyTitle: string;
  emptyText?: ReactNode;
}

export function PagedTable<T>({ label, list, columns, keyOf, emptyTitle, emptyText }: Props<T>) {
  const { query, items } = list;
  if (query.isPending) return <PageLoading />;
  if (query.error && items.length === 0)
    return <ErrorState error={query.error} onRetry={() => query.refetch()} />;
  if (items.length === 0) return <Empty title={emptyTitle}>{emptyText}</Empty>;
  return (
    <>
      <DataTable label={label} items={items} columns={columns} keyOf={keyOf} />
      {query.hasNextPage && (
        <Button
          variant="default"
          size="xs"
          mt="sm"
          loading={query.isFetchingNextPage}
          onClick={() => query.fetchNextPage()}
        >
          Show more
        </Button>
      )}
    </>
  );
}
