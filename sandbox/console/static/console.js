// The console speaks the public API and nothing else. Data becomes text nodes, never markup.

const STAGES = ["plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview"];
const POLL_MS = 4000;
const MAX_LINES = 3000;
const PAGE = 50;

const $ = (selector, root = document) => root.querySelector(selector);

// --- The API -------------------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.hint = body.hint || "";
  }
}

async function call(method, path, body, headers = {}) {
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

function said(error) {
  if (error instanceof Problem) return error.hint ? `${error.message} ${error.hint}` : error.message;
  return "The service does not answer. This page tries again by itself.";
}

function notice(text) {
  const place = $("#notice");
  if (place.textContent !== text) place.textContent = text;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- Sessions ------------------------------------------------------------------------------------------------------

let sessions = [];
let shown = PAGE;
let open = null;

const nameOf = (session) => session.project_id || `blank ${session.runtime_type}`;
const when = (text) => new Date(text).toLocaleString();

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

function drawStatus(element, status) {
  setText(element, status);
  element.dataset.status = status;
}

// --- Lines of output -----------------------------------------------------------------------------------------------

class Log {
  constructor(element) {
    this.element = element;
    this.waiting = [];
    this.frame = 0;
    element.replaceChildren();
  }

  add(line, stream, role) {
    this.waiting.push([line, stream, role]);
    if (this.waiting.length > MAX_LINES) this.waiting.shift();
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const box = this.element;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const lines = document.createDocumentFragment();
    for (const [line, stream, role] of this.waiting.splice(0)) {
      const row = document.createElement("div");
      row.className = stream === "stderr" || stream === "system" ? stream : "stdout";
      if (role) {
        const tag = document.createElement("span");
        tag.className = "role";
        tag.textContent = role;
        row.append(tag);
      }
      row.append(line);
      lines.append(row);
    }
    box.append(lines);
    for (let extra = box.children.length - MAX_LINES; extra > 0; extra--) box.firstElementChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.waiting = [];
    this.element.replaceChildren();
  }
}

// --- One session ---------------------------------------------------------------------------------------------------

class View {
  constructor(id) {
    this.id = id;
    this.path = `/sessions/${encodeURIComponent(id)}`;
    this.session = null;
    this.seq = 0;
    this.run = null;
    this.ended = false;
    this.log = new Log($("#launch-output .log"));
    this.output = null;
    this.clearRun();
    $("#detail").hidden = true;
    this.removePreview();
  }

  close() {
    this.id = null;
    this.events?.close();
    this.log.close();
    this.closeOutput();
    this.removePreview();
  }

  async refresh() {
    const id = this.id;
    let session;
    try {
      session = await call("GET", this.path);
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 404 || id !== this.id) throw error;
      close();
      $("#nothing").textContent = "There is no such session.";
      return;
    }
    if (id !== this.id) return;
    this.session = session;
    this.draw();
    // A stream that ended is opened again when there is a run it has not seen the end of.
    if (!this.events || (this.events.readyState === EventSource.CLOSED && session.status === "creating")) this.follow();
  }

  draw() {
    const { session } = this;
    $("#nothing").hidden = true;
    $("#detail").hidden = false;
    setText($("#detail-title"), nameOf(session));
    document.title = `${nameOf(session)} · purple8-sandbox`;
    drawStatus($("#detail-status"), session.status);
    const over = session.status === "terminated";
    for (const id of ["relaunch", "renew", "terminate"]) $(`#${id}`).hidden = over;
    $("#recover").hidden = session.status !== "error";
    this.drawFacts();
    if (session.error && (this.ended || session.status === "error")) this.drawProblem(session.error);
    this.drawPreview();
    this.toggleOutput();
  }

  drawFacts() {
    const { session } = this;
    const facts = [
      ["Session", session.session_id],
      ["User", session.user_id],
      ["Runtime", session.runtime_type],
      ...Object.entries(session.containers || {}).map(([role, it]) => [role, `${it.runtime}, ${it.status}`]),
      ["Created", when(session.created_at)],
      session.terminated_at ? ["Ended", when(session.terminated_at)] : ["Ends", session.expires_at ? when(session.expires_at) : "never"],
    ];
    const list = $("#facts");
    const text = facts.flat().join("\n");
    if (this.factsText === text) return;
    this.factsText = text;
    list.replaceChildren(...facts.map(([name, value]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      const data = document.createElement("dd");
      term.textContent = name;
      data.textContent = value;
      row.append(term, data);
      return row;
    }));
  }

  // The launch, as its events tell it.

  follow() {
    this.events?.close();
    const events = this.events = new EventSource(`/api/v1${this.path}/events?after=${this.seq}`);
    const handlers = {
      stage: (data) => this.onStage(data),
      log: (data) => this.log.add(data.line, data.stream, data.role),
      status: (data) => this.onStatus(data),
      preview: () => this.soon(),
      problem: (data) => this.drawProblem(data),
      end: () => { this.ended = true; this.soon(); },
    };
    for (const [type, handle] of Object.entries(handlers)) {
      events.addEventListener(type, (event) => {
        if (events !== this.events || this.id === null) return;
        const data = JSON.parse(event.data);
        if (data.seq <= this.seq) return;
        this.seq = data.seq;
        if (data.run_id !== this.run) this.startRun(data.run_id);
        handle(data);
      });
    }
  }

  startRun(run) {
    if (this.run !== null) {
      this.clearRun();
      this.log.add("— a new run —", "system");
    }
    this.run = run;
  }

  clearRun() {
    this.ended = false;
    $("#problem").hidden = true;
    $("#stages").replaceChildren(...STAGES.map((name) => {
      const item = document.createElement("li");
      item.dataset.stage = name;
      const label = document.createElement("span");
      const state = document.createElement("span");
      label.className = "name";
      label.textContent = name;
      state.className = "state";
      state.textContent = "waiting";
      item.append(label, state);
      return item;
    }));
  }

  onStage({ stage, state, total, duration_ms: duration }) {
    const items = [...$("#stages").children];
    items.forEach((item, index) => { item.hidden = Boolean(total) && index >= total; });
    const item = items.find((it) => it.dataset.stage === stage);
    if (!item) return;
    item.dataset.state = state;
    if (state === "started") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    $(".state", item).textContent = duration == null ? state : `${state}, ${seconds(duration)}`;
  }

  onStatus({ status }) {
    drawStatus($("#detail-status"), status);
    this.soon();
  }

  drawProblem({ code, message, hint, stage }) {
    const box = $("#problem");
    setText($("strong", box), stage ? `${stage}: ${code}` : code);
    setText($(".message", box), message || "");
    setText($(".hint", box), hint || "");
    box.hidden = false;
  }

  // Several events at once ask for one look at the session.
  soon() {
    this.timer ||= setTimeout(() => {
      this.timer = 0;
      if (this.id !== null) refresh();
    }, 100);
  }

  // The preview.

  drawPreview() {
    const { session } = this;
    const url = session.status === "running" ? safeUrl(session.preview_url) : null;
    if (!url) {
      this.removePreview();
      return;
    }
    $("#preview").hidden = false;
    $("#preview-link").href = url; // signed anew each time, so it has not expired when it is clicked
    if (!$("#preview-frame").hasAttribute("src")) $("#preview-frame").src = url;
  }

  removePreview() {
    $("#preview").hidden = true;
    $("#preview-frame").removeAttribute("src");
  }

  reloadPreview() {
    const url = safeUrl(this.session?.preview_url);
    if (url) $("#preview-frame").src = url;
  }

  // What the app prints; followed while it is shown.

  toggleOutput() {
    if (!$("#app-output").open) {
      this.closeOutput();
      return;
    }
    // Before the app was started and after the session is over there is nothing to ask for.
    const status = this.session?.status;
    if (this.output || this.refusedIn === status || (status !== "running" && status !== "error")) return;
    const log = this.outputLog = new Log($("#app-output .log"));
    const output = this.output = new EventSource(`/api/v1${this.path}/logs?follow=1`);
    output.addEventListener("log", (event) => {
      const data = JSON.parse(event.data);
      log.add(data.line, data.stream, data.role);
    });
    output.addEventListener("error", () => {
      if (output.readyState !== EventSource.CLOSED || output !== this.output) return;
      this.output = null;
      this.refusedIn = status;
    });
  }

  closeOutput() {
    this.output?.close();
    this.output = null;
    this.outputLog?.close();
  }

  // What can be done with it.

  async act(button, method, path, body) {
    button.disabled = true;
    try {
      await call(method, this.path + path, body);
      await refresh();
      if (path === "/relaunch" || path === "/recover") this.follow();
    } catch (error) {
      notice(said(error));
    } finally {
      button.disabled = false;
    }
  }
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function safeUrl(text) {
  if (!text) return null;
  const url = new URL(text, location.href);
  return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
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
  open = new View(id);
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
