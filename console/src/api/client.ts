/** The client of the service's API, with types from its OpenAPI document, and its errors. */
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Session = Schemas["SessionView"];

/** An error that the service answered: RFC 9457 with a stable code and a hint. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }

  static from(status: number, body: unknown): Problem {
    const { code, detail, title, hint } = (body ?? {}) as Record<string, string | undefined>;
    return new Problem(
      status,
      code ?? "unknown",
      detail ?? title ?? `The service answered ${status}.`,
      hint ?? "",
    );
  }
}

/** A request that got no answer, because the service is not running or cannot be reached. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. This page tries again by itself.");
  }
}

/** `fetch` that throws Unreachable, and shows the login form when the caller is signed out. */
export async function request(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(input, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (response.status === 401) {
    location.reload();
    return new Promise<Response>(() => {});
  }
  return response;
}

/** The response, if it is a success. Throws the Problem that it carries otherwise. */
export async function succeeded(response: Response): Promise<Response> {
  if (response.ok) return response;
  const isJson = /[/+]json/.test(response.headers.get("content-type") ?? "");
  throw Problem.from(response.status, isJson ? await response.json() : {});
}

export const api = createClient<paths>({ baseUrl: location.origin, fetch: (input) => request(input) });

type Answer<T> = { data?: T; error?: unknown; response: Response };

/** The body of a successful answer. Throws Problem or Unreachable otherwise. */
export async function unwrap<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer;
  if (!response.ok) throw Problem.from(response.status, error);
  return data as T;
}

/** A JSON answer of a path that the OpenAPI document describes only loosely. */
export async function json<T>(path: string, init?: RequestInit): Promise<T> {
  const headers = { Accept: "application/json", ...init?.headers };
  const response = await succeeded(await request(path, { ...init, headers }));
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** Send a JSON body. */
export function sendJson<T>(method: "POST" | "PUT" | "PATCH", path: string, body: unknown): Promise<T> {
  return json<T>(path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** The path of a session in the API. */
export function sessionPath(id: string): string {
  return `/api/v1/sessions/${encodeURIComponent(id)}`;
}
