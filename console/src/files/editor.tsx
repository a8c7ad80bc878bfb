/** A file in CodeMirror. A change on disk is noticed; what is being edited is never lost to it. */
import { Alert, Button, Group, Text, useComputedColorScheme } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { Problem } from "../api/client";
import { Empty, ErrorState, PageLoading } from "../ui/states";
import { bytes } from "../ui/time";
import { readFile, writeFile } from "./api";
import { type CodeView, openCode } from "./code";

interface Props {
  id: string;
  role: string;
  path: string;
  isShown: boolean;
  /** The line to show first. */
  line: number;
}

/** Larger files are offered for download only. */
const MAX_BYTES = 2_000_000;
const REFRESH_MS = 4000;

export function Editor({ id, role, path, isShown, line }: Props) {
  const key = ["file", id, role, path];
  const queries = useQueryClient();
  const file = useQuery({
    queryKey: key,
    queryFn: async () => asText(await readFile(id, role, path)),
    refetchInterval: isShown ? REFRESH_MS : false,
  });
  const [saved, setSaved] = useState<string | null>(null);
  const [text, setText] = useState("");
  const save = useMutation({
    mutationFn: (content: string) => writeFile(id, role, path, content),
    onSuccess: (_, content) => {
      setSaved(content);
      queries.setQueryData(key, content);
    },
  });
  const onDisk = file.data;
  const isChanged = saved !== null && text !== saved;
  const isChangedOnDisk = typeof onDisk === "string" && saved !== null && onDisk !== saved;

  // The first content, and each change on disk while nothing is being edited, is taken over.
  useEffect(() => {
    if (
      typeof onDisk === "string" &&
      (saved === null || (isChangedOnDisk && !isChanged && !save.isPending))
    ) {
      setSaved(onDisk);
      setText(onDisk);
    }
  }, [onDisk, saved, isChanged, isChangedOnDisk, save.isPending]);

  if (file.error instanceof Problem && file.error.status === 404)
    return <Empty title="The file has been removed" />;
  if (file.error && file.data === undefined)
    return <ErrorState error={file.error} onRetry={() => file.refetch()} />;
  if (onDisk === undefined || (typeof onDisk === "string" && saved === null)) return <PageLoading />;
  if (typeof onDisk !== "string")
    return (
      <Empty title="This file is not shown">{`It is ${onDisk.reason}, ${bytes(onDisk.size)}. Download it instead.`}</Empty>
    );
  return (
    <>
      <Group gap="xs" mb={6}>
        <Button
          size="compact-sm"
          disabled={!isChanged}
          loading={save.isPending}
          onClick={() => save.mutate(text)}
        >
          Save
        </Button>
        <Text size="xs" c="dimmed" role="status">
          {isChanged ? "Not saved" : "Saved"}
        </Text>
      </Group>
      {isChanged && isChangedOnDisk && (
        <Alert color="orange" title="The file has changed on disk" mb="xs">
          <Button
            size="compact-xs"
            variant="default"
            onClick={() => {
              setSaved(onDisk);
              setText(onDisk);
            }}
          >
            Take the version on disk
          </Button>
        </Alert>
      )}
      {save.error && <ErrorState error={save.error} />}
      <Code
        path={path}
        line={line}
        text={text}
        onChange={setText}
        onSave={(content) => save.mutate(content)}
      />
    </>
  );
}

interface CodeProps {
  path: string;
  line: number;
  text: string;
  onChange: (text: string) => void;
  onSave: (text: string) => void;
}

function Code({ path, line, text, onChange, onSave }: CodeProps) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<CodeView | null>(null);
  const latest = useRef({ text, onChange, onSave });
  latest.current = { text, onChange, onSave };
  const isDark = useComputedColorScheme() === "dark";

  useEffect(() => {
    if (!box.current) return;
    const opened = openCode(box.current, {
      path,
      line,
      text: latest.current.text,
      isDark,
      onChange: (changed) => latest.current.onChange(changed),
      onSave: (content) => latest.current.onSave(content),
    });
    view.current = opened;
    return () => opened.close();
  }, [path, line, isDark]);

  useEffect(() => view.current?.replace(text), [text]);
  return <div ref={box} data-testid="editor" />;
}

/** The content as text, or why it is not shown as text. */
export function asText(content: Uint8Array): string | { reason: string; size: number } {
  if (content.length > MAX_BYTES) return { reason: "large", size: content.length };
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    return text.includes("\0") ? { reason: "binary", size: content.length } : text;
  } catch {
    return { reason: "binary", size: content.length };
  }
}
