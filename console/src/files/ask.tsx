/** A dialog that asks for one line of text. */
import { Button, Group, Modal, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";

interface Question {
  title: string;
  label: string;
  answer: (text: string | null) => void;
}

/** Returns `ask`, which resolves with the text or null, and the dialog, which the caller shows. */
export function useAsk(): {
  ask: (title: string, label: string, initial: string) => Promise<string | null>;
  dialog: ReactNode;
} {
  const [question, setQuestion] = useState<Question | null>(null);
  const [text, setText] = useState("");

  function close(answer: string | null): void {
    question?.answer(answer);
    setQuestion(null);
  }

  const dialog = (
    <Modal
      opened={question !== null}
      onClose={() => close(null)}
      title={question?.title}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          close(text.trim());
        }}
      >
        <TextInput
          label={question?.label}
          value={text}
          data-autofocus
          onChange={(event) => setText(event.currentTarget.value)}
        />
        <Group justify="flex-end" mt="md">
          <Button variant="default" onClick={() => close(null)}>
            Cancel
          </Button>
          <Button type="submit">OK</Button>
        </Group>
      </form>
    </Modal>
  );
  return {
    ask: (title, label, initial) => {
      setText(initial);
      return new Promise((answer) => setQuestion({ title, label, answer }));
    },
    dialog,
  };
}
