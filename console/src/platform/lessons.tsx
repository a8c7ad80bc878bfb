/** Lessons with their effect, where they were applied, and the runs that made them. */
import { Button, Group, Tabs, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { caller } from "../api/caller";
import { json, type Schemas } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { Status } from "../ui/status";
import { Time } from "../ui/time";
import { Search } from "./filters";

export function Lessons() {
  const [agent, setAgent] = useState("");
  return (
    <>
      <Group mb="sm">
        <Search label="Agent" value={agent} onChange={setAgent} />
      </Group>
      <Tabs defaultValue="lessons" keepMounted={false}>
        <Tabs.List mb="sm">
          <Tabs.Tab value="lessons">Lessons</Tabs.Tab>
          <Tabs.Tab value="applications">Applications</Tabs.Tab>
          <Tabs.Tab value="effect">Effect by agent</Tabs.Tab>
          <Tabs.Tab value="runs">Refinement runs</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="lessons">
          <LessonList agent={agent} />
        </Tabs.Panel>
        <Tabs.Panel value="applications">
          <Applications agent={agent} />
        </Tabs.Panel>
        <Tabs.Panel value="effect">
          <Effect agent={agent} />
        </Tabs.Panel>
        <Tabs.Panel value="runs">
          <Runs />
        </Tabs.Panel>
      </Tabs>
    </>
  );
}

function percent(part: number | null | undefined): string {
  return part === null || part === undefined ? "–" : `${Math.round(part * 100)} %`;
}

function LessonList({ agent }: { agent: string }) {
  const list = useList<Schemas["LessonView"]>("/api/v1/lessons", { agent_name: agent });
  return (
    <PagedTable
      label="Lessons"
      list={list}
      keyOf={(it) => it.id}
      emptyTitle="No lessons"
      emptyText="Lessons are learned from failed launches, or posted to /api/v1/lessons."
      columns={[
        {
          title: "Lesson",
          cell: (it) => (
            <Text size="sm" className="wrapped">
              {it.lesson_text}
            </Text>
          ),
        },
        { title: "Agent", cell: (it) => it.agent_name },
        { title: "Severity", cell: (it) => <Status value={it.severity} /> },
        { title: "Applied", cell: (it) => it.times_applied },
        { title: "Effect", cell: (it) => percent(it.effectiveness_score) },
        { title: "Learned", cell: (it) => <Time value={it.created_at} /> },
        { title: "In use", cell: (it) => <LessonSwitch lesson={it} /> },
      ]}
    />
  );
}

function LessonSwitch({ lesson }: { lesson: Schemas["LessonView"] }) {
  const queries = useQueryClient();
  const change = useMutation({
    mutationFn: () =>
      json(`/api/v1/lessons/${lesson.id}`, {
        method: "PATCH",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ is_active: !lesson.is_active }),
      }),
    onSettled: () => queries.invalidateQueries({ queryKey: ["list", "/api/v1/lessons"] }),
  });
  if (!caller.isAdmin) return lesson.is_active ? "yes" : "no";
  return (
    <Button size="compact-xs" variant="default" loading={change.isPending} onClick={() => change.mutate()}>
      {lesson.is_active ? "Switch off" : "Switch on"}
    </Button>
  );
}

function Applications({ agent }: { agent: string }) {
  const list = useList<Schemas["ApplicationView"]>("/api/v1/lesson-applications", { agent_name: agent });
  return (
    <PagedTable
      label="Applications of lessons"
      list={list}
      keyOf={(it) => it.id}
      emptyTitle="No lesson has been applied"
      columns={[
        { title: "Lesson", cell: (it) => it.lesson_id },
        { title: "Agent", cell: (it) => it.agent_name },
        { title: "Run", cell: (it) => <code>{it.pipeline_run_id}</code> },
        { title: "Project", cell: (it) => it.project_name ?? "–" },
        {
          title: "Helped",
          cell: (it) => ({ true: "yes", false: "no", null: "not known yet" })[String(it.prevented_issue)],
        },
        { title: "Notes", cell: (it) => it.outcome_notes ?? "" },
      ]}
    />
  );
}

function Effect({ agent }: { agent: string }) {
  const list = useList<Schemas["StatsView"]>("/api/v1/learning-stats", { agent_name: agent });
  return (
    <PagedTable
      label="Effect by agent"
      list={list}
      keyOf={(it) => it.agent_name}
      emptyTitle="Nothing has been learned yet"
      columns={[
        { title: "Agent", cell: (it) => it.agent_name },
        { title: "Lessons", cell: (it) => `${it.active_lessons} of ${it.total_lessons_learned} in use` },
        { title: "Applied", cell: (it) => it.total_applications },
        { title: "Helped", cell: (it) => it.successful_preventions },
        { title: "Effect", cell: (it) => percent(it.overall_effectiveness) },
        { title: "Last applied", cell: (it) => <Time value={it.last_lesson_applied_at} /> },
      ]}
    />
  );
}

function Runs() {
  const list = useList<Schemas["RefinementRunView"]>("/api/v1/refinement-runs");
  return (
    <PagedTable
      label="Refinement runs"
      list={list}
      keyOf={(it) => it.id}
      emptyTitle="No refinement runs"
      columns={[
        { title: "Started by", cell: (it) => it.triggered_by },
        { title: "Status", cell: (it) => <Status value={it.status} /> },
        { title: "Issues", cell: (it) => it.issues_analyzed },
        { title: "Lessons", cell: (it) => it.lessons_generated },
        { title: "Started", cell: (it) => <Time value={it.started_at} /> },
        { title: "Error", cell: (it) => it.error_message ?? "" },
      ]}
    />
  );
}
