// The console speaks the public API and nothing else. Data becomes text nodes, never markup.

import { $, Problem, call, drawStatus, nameOf, notice, said, setText, when } from "./api.js";
import { View } from "./session.js";

const POLL_MS = 4000;
const PAGE = 50;

// --- Sessions ------------------------------------------------------------------------------------------------------

let sessions = [];
let shown = PAGE;
let open = null;

let refreshing = null;
let again = false;

// One look at a time; asked for meanwhile, another follows.
function refresh() {
  again = refreshing !== null;
  refreshing ||= look().finally(() => {
    refreshing = null;
    if (again) refresh();
  });
  return refreshing;
}

async function look() {
  try {
    let page = await call("GET", `/sessions?limit=${PAGE}`);
    const items = [...page.items];
    while (page.next_cursor && items.length < shown) {
      page = await call("GET", `/sessions?limit=${PAGE}&cursor=${encodeURIComponent(page.next_cursor)}`);
      items.push(...page.items);
    }
    sessions = items;
    $("#more").hidden = !page.next_cursor;
    drawList();
    if (open) await open.refresh();
    notice("");
  } catch (error) {
    notice(said(error));
  }
}

function drawList() {
  const list = $("#sessions");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  sessions.forEach((session, index) => {
    const row = rows.get(session.session_id) || $("#session-item").content.firstElementChild.cloneNode(true);
    rows.delete(session.session_id);
    row.dataset.id = session.session_id;
    const link = $("a", row);
    link.href = `#${session.session_id}`;
    if (open && open.id === session.session_id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    setText($(".name", row), nameOf(session));
    drawStatus($(".status", row), session.status);
    $("time", row).dateTime = session.created_at;
    setText($("time", row), when(session.created_at));
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] || null);
  });
  rows.forEach((row) => row.remove());
  $("#no-sessions").hidden = sessions.length > 0;
}

function close() {
  open?.close();
  open = null;
  $("#detail").hidden = true;
  $("#nothing").hidden = false;
  $("#nothing").textContent = "Choose a session, or launch one.";
  document.title = "purple8-sandbox";
}

function show() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!/^[0-9a-f-]{32,36}$/i.test(id)) {
    close();
    return;
  }
  if (open?.id === id) return;
  close();
  open = new View(id, refresh, () => {
    close();
    $("#nothing").textContent = "There is no such session.";
  });
  drawList();
  refresh();
}

// --- New sessions --------------------------------------------------------------------------------------------------

async function loadProjects() {
  const select = $("#project");
  try {
    const { items } = await call("GET", "/projects?limit=500");
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...items.map((project) => new Option(project.project_id, project.project_id)));
    select.value = items.some((project) => project.project_id === chosen) ? chosen : "";
  } catch (error) {
    notice(said(error));
  }
}

function showRuntime() {
  for (const element of document.querySelectorAll("[data-blank]")) element.hidden = $("#project").value !== "";
}

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// One key for one filled-in form: pressing again after a broken connection does not launch a second session.
let key = newKey();

async function create(event) {
  event.preventDefault();
  const button = $("#create button");
  const project = $("#project").value;
  button.disabled = true;
  setText($("#create-problem"), "");
  try {
    const body = project ? { project_id: project } : { runtime_type: $("#runtime").value };
    const session = await call("POST", "/sessions", body, { "Idempotency-Key": key });
    key = newKey();
    location.hash = session.session_id;
    $("#session").focus();
  } catch (error) {
    if (error instanceof Problem) key = newKey();
    setText($("#create-problem"), said(error));
  } finally {
    button.disabled = false;
  }
}

// --- Start ---------------------------------------------------------------------------------------------------------

$("#create").addEventListener("submit", create);
$("#create").addEventListener("change", () => { key = newKey(); showRuntime(); });
$("#project").addEventListener("focus", loadProjects);
$("#more").addEventListener("click", () => { shown += PAGE; refresh(); });
$("#relaunch").addEventListener("click", (event) => open?.act(event.target, "POST", "/relaunch"));
$("#recover").addEventListener("click", (event) => open?.act(event.target, "POST", "/recover"));
$("#renew").addEventListener("click", (event) => open?.act(event.target, "POST", "/renew", { seconds: 3600 }));
$("#terminate").addEventListener("click", (event) => {
  if (confirm("End this session? Its containers and files are removed.")) open?.act(event.target, "DELETE", "");
});
$("#preview-reload").addEventListener("click", () => open?.reloadPreview());
$("#app-output").addEventListener("toggle", () => open?.toggleOutput());
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden) refresh(); }, POLL_MS);

loadProjects();
refresh();
show();
