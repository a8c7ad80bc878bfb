// What every part of the page needs: the public API, and text into elements.

export const $ = (selector, root = document) => root.querySelector(selector);

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.hint = body.hint || "";
  }
}

export async function call(method, path, body, headers = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(`/api/v1${path}`, options);
  if (response.status === 401) {
    location.reload(); // the login form
    return new Promise(() => {});
  }
  const type = response.headers.get("Content-Type") || "";
  const data = /[/+]json/.test(type) ? await response.json() : {};
  if (!response.ok) throw new Problem(response.status, data);
  return data;
}

export function said(error) {
  if (error instanceof Problem) return error.hint ? `${error.message} ${error.hint}` : error.message;
  return "The service does not answer. This page tries again by itself.";
}

export function notice(text) {
  const place = $("#notice");
  if (place.textContent !== text) place.textContent = text;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const nameOf = (session) => session.project_id || `blank ${session.runtime_type}`;
export const when = (text) => new Date(text).toLocaleString();

export function drawStatus(element, status) {
  setText(element, status);
  element.dataset.status = status;
}
