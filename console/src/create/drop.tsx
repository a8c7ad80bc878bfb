/** Where a folder or an archive is dropped or chosen. It is packed here and uploaded as a project. */
import { Button, Group, Progress, Text, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { type DragEvent, useRef, useState } from "react";
import { ErrorState } from "../ui/states";
import { bytes } from "../ui/time";
import {
  filesOfEntry,
  filesOfInput,
  PackingFailed,
  pack,
  projectId,
  type SourceFile,
  wanted,
} from "./packing";
import { archiveType, type Project, upload } from "./upload";

interface Source {
  name: string;
  read: (onProgress: (part: number) => void) => Promise<{ archive: Blob; type: string; note: string }>;
}

function folderSource(name: string, list: () => Promise<SourceFile[]>): Source {
  return {
    name,
    read: async (onProgress) => {
      const all = await list();
      const files = await wanted(all);
      const archive = await pack(files, onProgress);
      const left = all.length - files.length;
      return {
        archive,
        type: "application/zip",
        note: `${files.length} files${left > 0 ? `, ${left} left out` : ""}`,
      };
    },
  };
}

function archiveSource(file: File): Source {
  return {
    name: file.name,
    read: async () => {
      const type = archiveType(file.name);
      if (!type)
        throw new PackingFailed(`${file.name} is no archive.`, "Drop a folder, a .zip or a .tar.gz.");
      return { archive: file, type, note: "archive" };
    },
  };
}

export function DropArea({ onUploaded }: { onUploaded: (project: Project) => void }) {
  const [isOver, setOver] = useState(false);
  const [name, setName] = useState("");
  const [progress, setProgress] = useState<{ label: string; part: number } | null>(null);
  const folder = useRef<HTMLInputElement>(null);
  const archive = useRef<HTMLInputElement>(null);
  const send = useMutation({
    mutationFn: async (source: Source) => {
      const packed = await source.read((part) => setProgress({ label: "Packing", part }));
      const label = `Uploading ${bytes(packed.archive.size)} (${packed.note})`;
      return upload(name || projectId(source.name), packed.archive, packed.type, (part) =>
        setProgress({ label, part }),
      );
    },
    onSuccess: onUploaded,
    onSettled: () => setProgress(null),
  });

  function onDrop(event: DragEvent): void {
    event.preventDefault();
    setOver(false);
    const item = event.dataTransfer.items[0];
    const entry = item?.webkitGetAsEntry();
    if (entry?.isDirectory) send.mutate(folderSource(entry.name, () => filesOfEntry(entry)));
    else if (event.dataTransfer.files[0]) send.mutate(archiveSource(event.dataTransfer.files[0]));
  }

  return (
    <>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the same is possible with the buttons inside */}
      <div
        className="drop"
        data-over={isOver || undefined}
        data-testid="drop"
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={onDrop}
      >
        <Text fw={600}>Drop a folder or an archive here</Text>
        <Text size="sm" c="dimmed">
          What .gitignore names is left out, and so are node_modules, .git and the like.
        </Text>
        <Group gap="xs" justify="center" mt="sm">
          <Button variant="default" size="xs" onClick={() => folder.current?.click()}>
            Choose a folder
          </Button>
          <Button variant="default" size="xs" onClick={() => archive.current?.click()}>
            Choose an archive
          </Button>
        </Group>
        <input
          ref={folder}
          type="file"
          hidden
          aria-label="Folder"
          // React does not know this attribute.
          {...{ webkitdirectory: "" }}
          onChange={({ currentTarget: { files } }) => {
            const root = files?.[0]?.webkitRelativePath.split("/")[0];
            if (files && root) send.mutate(folderSource(root, async () => filesOfInput(files)));
          }}
        />
        <input
          ref={archive}
          type="file"
          hidden
          aria-label="Archive"
          accept=".zip,.tgz,.tar.gz"
          onChange={({ currentTarget: { files } }) => files?.[0] && send.mutate(archiveSource(files[0]))}
        />
      </div>
      <TextInput
        mt="sm"
        size="xs"
        label="Project id"
        description="By default the name of the folder. A project that has this id already is replaced."
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
      />
      {progress && (
        <div role="status">
          <Text size="sm" mt="sm">
            {progress.label}
          </Text>
          <Progress value={progress.part * 100} aria-label={progress.label} />
        </div>
      )}
      {send.error && <ErrorState error={send.error} />}
      {send.error instanceof PackingFailed && <Text size="sm">{send.error.hint}</Text>}
    </>
  );
}
