/** The pages about the platform's records, in the order of the navigation. */

export interface PlatformEntry {
  name: string;
  title: string;
  isAdminOnly?: boolean;
}

export const platformPages: PlatformEntry[] = [
  { name: "agents", title: "Agents" },
  { name: "tests", title: "Tests" },
  { name: "logs", title: "Logs" },
  { name: "traces", title: "Traces" },
  { name: "coverage", title: "Coverage" },
  { name: "alerts", title: "Alerts" },
  { name: "lessons", title: "Lessons" },
  { name: "documents", title: "Documents" },
  { name: "memory", title: "Memory" },
  { name: "queries", title: "Queries" },
  { name: "secrets", title: "Secrets" },
  { name: "tokens", title: "Tokens", isAdminOnly: true },
  { name: "audit", title: "Audit log", isAdminOnly: true },
];
