// Lines of output: drawn once a frame, the oldest let go.

const MAX_LINES = 3000;

export class Log {
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
        row.append(tag, " ");
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
