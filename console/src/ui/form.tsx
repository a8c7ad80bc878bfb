/** A dialog with a form that creates or changes something, and the button that removes something. */
import { Button, Group, Modal, Stack } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { useConfirm } from "./confirm";
import { ErrorState } from "./states";

interface FormProps {
  title: string;
  onClose: () => void;
  /** Sends what was filled in. What it throws is shown in the dialog, which stays open then. */
  onSave: () => Promise<unknown>;
  children: ReactNode;
}

export function FormDialog({ title, onClose, onSave, children }: FormProps) {
  const save = useMutation({ mutationFn: onSave, onSuccess: onClose });
  return (
    <Modal opened onClose={onClose} title={title} size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Stack gap="sm">
          {children}
          {save.error && <ErrorState error={save.error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

interface RemoveProps {
  /** What is removed, as in "Remove the rule x?". */
  what: string;
  text: string;
  onRemove: () => Promise<unknown>;
}

export function RemoveButton({ what, text, onRemove }: RemoveProps) {
  const { confirm, dialog } = useConfirm();
  const remove = useMutation({ mutationFn: onRemove });
  return (
    <>
      <Button
        size="compact-xs"
        color="red"
        variant="outline"
        aria-label={`Remove ${what}`}
        loading={remove.isPending}
        onClick={async () => {
          if (await confirm(`Remove ${what}?`, text, "Remove")) remove.mutate();
        }}
      >
        Remove
      </Button>
      {remove.error && <ErrorState error={remove.error} />}
      {dialog}
    </>
  );
}
