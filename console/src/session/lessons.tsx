/** The lessons that were applied in the run of a session, and whether they helped. */
import type { Schemas, Session } from "../api/client";
import { PagedTable, useList } from "../ui/paged";
import { Time } from "../ui/time";

export default function LessonsPanel({ session }: { session: Session }) {
  const list = useList<Schemas["ApplicationView"]>("/api/v1/lesson-applications", {
    pipeline_run_id: session.pipeline_run_id,
  });
  return (
    <PagedTable
      label="Applied lessons"
      list={list}
      keyOf={(it) => it.id}
      emptyTitle="No lesson was applied in this run"
      emptyText="Lessons apply to the agents that a launch names."
      columns={[
        { title: "Lesson", cell: (it) => it.lesson_id },
        { title: "Agent", cell: (it) => it.agent_name },
        {
          title: "Helped",
          cell: (it) => ({ true: "yes", false: "no", null: "not known yet" })[String(it.prevented_issue)],
        },
        { title: "Notes", cell: (it) => it.outcome_notes ?? "" },
        { title: "Verified", cell: (it) => <Time value={it.outcome_verified_at} /> },
      ]}
    />
  );
}
