// One session: its launch as its events tell it, its output, its preview, and what can be done with it.

import { $, Problem, call, drawStatus, nameOf, notice, said, setText, when } from "./api.js";
import { Log } from "./log.js";

const STAGES = ["plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview"];
const OUTPUT_RETRY_MS = 2000;

export class View {
  // `refresh` looks at everything again; `gone` is called when there is no such session.
  constructor(id, refresh, gone) {
    this.look = refresh;
    this.gone = gone;
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
      this.gone();
      return;
    }
    if (id !== this.id) return;
    this.session = session;
    this.draw();
    // A browser gives up on a stream that is answered with an error, such as the 503 while the service restarts. The
    // stream is opened again when there is a run whose end it has not received.
    const closed = this.events?.readyState === EventSource.CLOSED;
    if (!this.events || (closed && (!this.ended || session.status === "creating"))) this.follow();
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
      ...Object.entries(session.containers || {}).map(([role, it]) => [role, describe(it)]),
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
      const time = document.createElement("span");
      label.className = "name";
      label.textContent = name;
      state.className = "state";
      state.textContent = "waiting";
      time.className = "time";
      item.append(label, state, " ", time);
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
    setText($(".state", item), state === "started" ? "running" : state === "completed" ? "done" : state);
    setText($(".time", item), duration == null || state === "skipped" ? "" : seconds(duration));
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
      if (this.id !== null) this.look();
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
    if (status !== "running" && status !== "error") this.overIn = null;
    else if (!this.output && this.overIn !== status) this.followOutput(status);
  }

  followOutput(status) {
    const log = this.outputLog = new Log($("#app-output .log"));
    const output = this.output = new EventSource(`/api/v1${this.path}/logs?follow=1`);
    output.addEventListener("log", (event) => {
      const data = JSON.parse(event.data);
      log.add(data.line, data.stream, data.role);
    });
    const over = () => {
      output.close();
      if (output !== this.output) return;
      this.output = null;
      this.overIn = status;
    };
    output.addEventListener("end", over);
    output.addEventListener("error", () => {
      if (output.readyState !== EventSource.CLOSED) return;
      if (status !== "running") return over();
      // The service may be restarting: read the output again from its beginning.
      setTimeout(() => {
        if (output !== this.output) return;
        log.close();
        this.output = null;
        this.soon();
      }, OUTPUT_RETRY_MS);
    });
  }

  closeOutput() {
    this.output?.close();
    this.output = this.overIn = null;
    this.outputLog?.close();
  }

  // What can be done with it.

  async act(button, method, path, body) {
    button.disabled = true;
    try {
      await call(method, this.path + path, body);
      await this.look();
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

function describe({ runtime, status, app, exit_code: code }) {
  const ended = app === "exited" ? `, its app exited${code == null ? "" : ` with ${code}`}` : "";
  return `${runtime}, ${status}${ended}`;
}

function safeUrl(text) {
  if (!text) return null;
  const url = new URL(text, location.href);
  return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
}
