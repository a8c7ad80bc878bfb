import type { Session } from "../api/client";

/** The name under which a session is shown. */
export function sessionName(session: Session): string {
  return session.project_id ?? `blank ${session.runtime_type}`;
}
