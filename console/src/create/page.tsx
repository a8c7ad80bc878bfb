/** A new session: from a folder or archive, from a project that is there, or blank. */
import { Alert, Button, Group, NativeSelect, Paper, Stack, Tabs, Text, Title } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { useLocation, useSearch } from "wouter";
import { api, json, Problem, type Schemas, type Session, unwrap } from "../api/client";
import { newKey } from "../api/keys";
import { sessionKey } from "../sessions/live";
import { ErrorState } from "../ui/states";
import { usePageTitle } from "../ui/title";
import { DropArea } from "./drop";
import { EnvEditor, type EnvEntry, toEnv } from "./env";
import { changedRoles, type Plan, PlanEditor } from "./plan";
import type { Project } from "./upload";

const RUNTIMES = ["python312", "node20"];

/** Where the plan is not known, it is filled in from here. */
const UNKNOWN_PLAN: Plan = {
  app: {
    runtime: "python312",
    root: ".",
    install: null,
    start: null,
    port: 8000,
    health: "/",
    env: {},
    framework: null,
    stated: [],
  },
};

export default function NewSessionPage() {
  usePageTitle("New session");
  const [project, setProject] = useState<Project | null>(null);
  const [plan, setPlan] = useState<Plan>({});
  const named = new URLSearchParams(useSearch()).get("project");

  function choose(next: Project | null): void {
    setProject(next);
    setPlan(next === null ? {} : (next.plan ?? UNKNOWN_PLAN));
  }

  return (
    <Stack maw={860} gap="md">
      <Title order={1} size="h3">
        New session
      </Title>
      <Tabs defaultValue={named ? "project" : "upload"} keepMounted={false} onChange={() => choose(null)}>
        <Tabs.List>
          <Tabs.Tab value="upload">Upload</Tabs.Tab>
          <Tabs.Tab value="project">Existing project</Tabs.Tab>
          <Tabs.Tab value="blank">Blank</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="upload" pt="md">
          <DropArea onUploaded={choose} />
        </Tabs.Panel>
        <Tabs.Panel value="project" pt="md">
          <ProjectChoice named={named} onChoose={choose} />
        </Tabs.Panel>
        <Tabs.Panel value="blank" pt="md">
          <BlankSession />
        </Tabs.Panel>
      </Tabs>
      {project && (
        <>
          <Text size="sm">
            <strong>{project.project_id}</strong>: {project.files === 1 ? "1 file" : `${project.files} files`}
            . This is what the launch does; change what should be different.
          </Text>
          {project.plan_problem && <PlanProblem problem={project.plan_problem} />}
          <PlanEditor plan={plan} onChange={setPlan} />
          <LaunchForm project={project} plan={plan} />
        </>
      )}
    </Stack>
  );
}

function PlanProblem({ problem }: { problem: Schemas["PlanProblemView"] }) {
  return (
    <Alert color="orange" title="How the project starts is not known">
      <Text size="sm">{problem.message}</Text>
      <Text size="sm" className="wrapped">
        Fill in a start command and a port below. {problem.hint}
      </Text>
      {problem.looked_at.map((line) => (
        <Text size="xs" key={line}>
          {line}
        </Text>
      ))}
    </Alert>
  );
}

interface ChoiceProps {
  /** The project that the address names, chosen once it has been read. */
  named: string | null;
  onChoose: (project: Project | null) => void;
}

function ProjectChoice({ named, onChoose }: ChoiceProps) {
  const projects = useQuery({
    queryKey: ["projects"],
    queryFn: () => unwrap(api.GET("/api/v1/projects", { params: { query: { limit: 500 } } })),
  });
  const items = projects.data?.items ?? [];
  const [chosen, setChosen] = useState("");
  const found = items.find((it) => it.project_id === named);
  const choose = useRef(onChoose);
  choose.current = onChoose;
  useEffect(() => {
    if (!found) return;
    setChosen(found.project_id);
    choose.current(found);
  }, [found]);
  if (projects.error) return <ErrorState error={projects.error} onRetry={() => projects.refetch()} />;
  return (
    <NativeSelect
      label="Project"
      value={chosen}
      onChange={(event) => {
        const id = event.currentTarget.value;
        setChosen(id);
        onChoose(items.find((it) => it.project_id === id) ?? null);
      }}
      data={[{ value: "", label: "Choose a project" }, ...items.map((it) => it.project_id)]}
    />
  );
}

interface Launch {
  entries: EnvEntry[];
  project_id?: string;
  runtime_type?: string;
  plan?: Plan;
}

/** POST a session and open its page. One key for one filled-in form, so that pressing again launches nothing twice. */
function useLaunch() {
  const queries = useQueryClient();
  const [, go] = useLocation();
  const [key, setKey] = useState(newKey);
  return useMutation({
    mutationFn: async ({ entries, ...body }: Launch) => {
      const env = await toEnv(entries, body.project_id ?? null);
      return json<Session>("/api/v1/sessions", {
        method: "POST",
        body: JSON.stringify(entries.length > 0 ? { ...body, env } : body),
        headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      });
    },
    onSuccess: (session) => {
      queries.setQueryData(sessionKey(session.session_id), session);
      go(`/sessions/${session.session_id}`);
    },
    onError: (error) => {
      if (error instanceof Problem) setKey(newKey());
    },
  });
}

function LaunchForm({ project, plan }: { project: Project; plan: Plan }) {
  const [env, setEnv] = useState<EnvEntry[]>([]);
  const launch = useLaunch();
  const changed = changedRoles(project.plan ?? {}, plan);
  return (
    <Paper withBorder p="md">
      <EnvEditor entries={env} onChange={setEnv} />
      {launch.error && <ErrorState error={launch.error} />}
      <Group mt="md">
        <Button
          loading={launch.isPending}
          onClick={() =>
            launch.mutate({
              project_id: project.project_id,
              entries: env,
              ...(changed ? { plan: changed } : {}),
            })
          }
        >
          Launch
        </Button>
      </Group>
    </Paper>
  );
}

function BlankSession() {
  const [runtime, setRuntime] = useState(RUNTIMES[0] ?? "");
  const [env, setEnv] = useState<EnvEntry[]>([]);
  const launch = useLaunch();
  return (
    <Stack gap="sm">
      <NativeSelect
        label="Runtime"
        data={RUNTIMES}
        value={runtime}
        onChange={(event) => setRuntime(event.currentTarget.value)}
      />
      <EnvEditor entries={env} onChange={setEnv} />
      {launch.error && <ErrorState error={launch.error} />}
      <Group>
        <Button
          loading={launch.isPending}
          onClick={() => launch.mutate({ runtime_type: runtime, entries: env })}
        >
          Launch
        </Button>
      </Group>
    </Stack>
  );
}
