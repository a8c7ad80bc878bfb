/** A question before something that cannot be undone. */
import { Button, Group, Modal, Text } from "@mantine/core";
import { type ReactNode, useState } from "react";

interface Question {
  title: string;
  text: string;
  action: string;
  answer: (isConfirmed: boolean) => void;
}

/** Returns `confirm`, which asks and resolves with the answer, and the dialog, which the caller shows. */
export function useConfirm(): {
  confirm: (title: string, text: string, action: string) => Promise<boolean>;
  dialog: ReactNode;
} {
  const [question, setQuestion] = useState<Question | null>(null);

  function close(isConfirmed: boolean): void {
    question?.answer(isConfirmed);
    setQuestion(null);
  }

  const dialog = (
    <Modal
      opened={question !== null}
      onClose={() => close(false)}
      title={question?.title}
      closeButtonProps={{ "aria-label": "Close" }}
      centered
    >
      <Text size="sm">{question?.text}</Text>
      <Group justify="flex-end" mt="md">
        <Button variant="default" onClick={() => close(false)}>
          Cancel
        </Button>
        <Button color="red" onClick={() => close(true)} data-autofocus>
          {question?.action}
        </Button>
      </Group>
    </Modal>
  );
  return {
    confirm: (title, text, action) => new Promise((answer) => setQuestion({ title, text, action, answer })),
    dialog,
  };
}
