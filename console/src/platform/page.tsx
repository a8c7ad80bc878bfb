/** A page of the platform's records, by its name in the address. */
import { Title } from "@mantine/core";
import type { ComponentType } from "react";
import { caller } from "../api/caller";
import { Empty, NotFound } from "../ui/states";
import { usePageTitle } from "../ui/title";
import { Agents } from "./agents";
import { Alerts } from "./alerts";
import { Audit } from "./audit";
import { Coverage } from "./coverage";
import { Documents } from "./documents";
import { Lessons } from "./lessons";
import { Logs } from "./logs";
import { MemoryPage } from "./memory";
import { platformPages } from "./pages";
import { Queries } from "./queries";
import { Secrets } from "./secrets";
import { Tests } from "./tests";
import { Tokens } from "./tokens";
import { Traces } from "./traces";

const PAGES: Record<string, ComponentType<{ item: string }>> = {
  agents: Agents,
  tests: Tests,
  logs: Logs,
  traces: Traces,
  coverage: Coverage,
  alerts: Alerts,
  lessons: Lessons,
  documents: Documents,
  memory: MemoryPage,
  queries: Queries,
  secrets: Secrets,
  tokens: Tokens,
  audit: Audit,
};

export default function PlatformPage({ part, item }: { part: string; item: string | undefined }) {
  const entry = platformPages.find(({ name }) => name === part);
  usePageTitle(entry?.title ?? "Platform");
  const Page = PAGES[part];
  if (!entry || !Page) return <NotFound what="page" />;
  return (
    <>
      <Title order={1} size="h3" mb="sm">
        {entry.title}
      </Title>
      {entry.isAdminOnly && !caller.isAdmin ? (
        <Empty title="Only an admin may see this">Sign in with an admin's token.</Empty>
      ) : (
        <Page item={item ?? ""} />
      )}
    </>
  );
}
