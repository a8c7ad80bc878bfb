/** The search and the filters of a log. */
import { MultiSelect, NativeSelect, TextInput } from "@mantine/core";
import type { RefObject } from "react";
import { LEVELS } from "./level";
import type { LogFilter } from "./line";

interface Props {
  filter: LogFilter;
  onFilter: (filter: LogFilter) => void;
  roles: string[];
  stages: string[];
  runs: { id: string; label: string }[];
  streams: string[];
  searchRef: RefObject<HTMLInputElement | null>;
}

export function FilterBar({ filter, onFilter, roles, stages, runs, streams, searchRef }: Props) {
  function choose(name: "stage" | "stream" | "level" | "run", value: string): void {
    onFilter({ ...filter, [name]: value === "" ? null : value });
  }
  return (
    <>
      <TextInput
        ref={searchRef}
        size="xs"
        type="search"
        aria-label="Search the log"
        placeholder="Search"
        w={170}
        value={filter.text}
        onChange={(event) => onFilter({ ...filter, text: event.currentTarget.value })}
      />
      {stages.length > 0 && (
        <Choice
          label="Stage"
          all="All stages"
          value={filter.stage}
          options={stages}
          onChange={(it) => choose("stage", it)}
        />
      )}
      {roles.length > 1 && (
        <MultiSelect
          size="xs"
          aria-label="Roles"
          placeholder={filter.roles.length === 0 ? "All roles" : ""}
          data={roles}
          value={filter.roles}
          onChange={(chosen) => onFilter({ ...filter, roles: chosen })}
          miw={150}
        />
      )}
      <Choice
        label="Stream"
        all="All streams"
        value={filter.stream}
        options={streams}
        onChange={(it) => choose("stream", it)}
      />
      <Choice
        label="Level"
        all="All levels"
        value={filter.level}
        options={[...LEVELS]}
        onChange={(it) => choose("level", it)}
      />
      {runs.length > 1 && (
        <NativeSelect
          size="xs"
          aria-label="Run"
          value={filter.run ?? ""}
          onChange={(event) => choose("run", event.currentTarget.value)}
          data={[{ value: "", label: "All runs" }, ...runs.map(({ id, label }) => ({ value: id, label }))]}
        />
      )}
    </>
  );
}

interface ChoiceProps {
  label: string;
  all: string;
  value: string | null;
  options: string[];
  onChange: (value: string) => void;
}

function Choice({ label, all, value, options, onChange }: ChoiceProps) {
  return (
    <NativeSelect
      size="xs"
      aria-label={label}
      value={value ?? ""}
      onChange={(event) => onChange(event.currentTarget.value)}
      data={[{ value: "", label: all }, ...options.map((option) => ({ value: option, label: option }))]}
    />
  );
}
