/** The table of every list in the console. */
import { Table } from "@mantine/core";
import type { ReactNode } from "react";

export interface Column<T> {
  title: string;
  /** Shown instead of the title. */
  header?: ReactNode;
  cell: (item: T) => ReactNode;
}

interface Props<T> {
  label: string;
  items: T[];
  columns: Column<T>[];
  keyOf: (item: T) => string | number;
  /** The value of `data-item` of a row, by which tests find it. */
  idOf?: (item: T) => string;
  minWidth?: number;
}

export function DataTable<T>({ label, items, columns, keyOf, idOf, minWidth = 560 }: Props<T>) {
  return (
    <Table.ScrollContainer minWidth={minWidth} type="native">
      <Table aria-label={label} verticalSpacing={6} highlightOnHover>
        <Table.Thead>
          <Table.Tr>
            {columns.map(({ title, header }) => (
              <Table.Th key={title}>{header ?? title}</Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {items.map((item) => (
            <Table.Tr key={keyOf(item)} data-item={idOf?.(item)}>
              {columns.map(({ title, cell }) => (
                <Table.Td key={title}>{cell(item)}</Table.Td>
              ))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
