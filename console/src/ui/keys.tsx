/** The list of keys. */
import { Kbd, Modal, Table } from "@mantine/core";

const KEYS: [string, string][] = [
  ["Ctrl K", "Commands and pages"],
  ["?", "This list"],
  ["g", "Sessions"],
  ["n", "New session"],
  ["/", "Search the list or the log"],
  ["f", "Log: follow or hold"],
  ["Escape", "Close a dialog, or leave a field"],
];

export function KeysHelp({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title="Keyboard shortcuts"
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <Table>
        <Table.Tbody>
          {KEYS.map(([key, meaning]) => (
            <Table.Tr key={key}>
              <Table.Td w={110}>
                <Kbd>{key}</Kbd>
              </Table.Td>
              <Table.Td>{meaning}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Modal>
  );
}
