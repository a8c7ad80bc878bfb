/** A folder of a session as a list whose subfolders open in place. */
import { Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { type FileInfo, joined, listFolder } from "./api";

interface Props {
  id: string;
  role: string;
  folder: string;
  chosen: string;
  isShown: boolean;
  onChoose: (chosen: { path: string; isFolder: boolean }) => void;
}

const REFRESH_MS = 5000;

export function Tree(props: Props) {
  const { id, role, folder, isShown } = props;
  const files = useQuery({
    queryKey: ["files", id, role, folder],
    queryFn: () => listFolder(id, role, folder),
    refetchInterval: isShown ? REFRESH_MS : false,
  });
  if (files.error && !files.data) return <Text size="xs">{files.error.message}</Text>;
  if (!files.data) return <Text size="xs">Loading</Text>;
  if (files.data.length === 0) return <Text size="xs">This folder is empty.</Text>;
  return (
    <ul>
      {files.data.map((file) => (
        <Entry key={file.path} {...props} file={file} />
      ))}
    </ul>
  );
}

function Entry({ file, ...props }: Props & { file: FileInfo }) {
  const [isOpen, setOpen] = useState(false);
  const name = file.path.split("/").at(-1) ?? file.path;
  const path = joined(props.folder, name);
  const isFolder = file.type === "directory";
  return (
    <li>
      <button
        type="button"
        aria-current={props.chosen === path}
        aria-expanded={isFolder ? isOpen : undefined}
        title={path}
        onClick={() => {
          if (isFolder) setOpen(!isOpen);
          props.onChoose({ path, isFolder });
        }}
      >
        <span aria-hidden="true">{isFolder ? (isOpen ? "▾ " : "▸ ") : "  "}</span>
        {name}
      </button>
      {isFolder && isOpen && <Tree {...props} folder={path} />}
    </li>
  );
}
