"use strict";
// Plots that answer to the pointer, tables that sort, and the switch of the theme.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

/** Show the values of the point next to the pointer, or of the one the arrow keys have come to. */
class Plot {
  constructor(figure) {
    this.canvas = figure.querySelector(".canvas");
    this.svg = figure.querySelector("svg");
    this.tip = figure.querySelector(".tip");
    this.series = JSON.parse(figure.querySelector("script").textContent);
    this.hidden = new Set();
    this.place = null; // [series, point]
    const { width, height } = this.svg.viewBox.baseVal;
    Object.assign(this, { width, height });
    this.cross = element("g", { class: "cross", visibility: "hidden" }, this.svg);
    this.down = element("line", {}, this.cross);
    this.ring = element("circle", { r: 3.5 }, this.cross);
    this.listen(figure);
  }

  listen(figure) {
    for (const name of ["pointermove", "pointerdown"]) {
      this.canvas.addEventListener(name, (event) => this.show(this.nearest(event)));
    }
    this.canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.show(null); // a finger leaves after each tap
    });
    this.canvas.addEventListener("blur", () => this.show(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    for (const [index, button] of figure.querySelectorAll(".legend button").entries()) {
      button.addEventListener("click", () => this.toggle(index, button));
    }
  }

  /** Of the series that are shown, the point next to a place; left and right count for more. */
  nearest(event) {
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    const y = ((event.clientY - box.top) / box.height) * this.height;
    let best = null;
    let least = Infinity;
    this.series.forEach((series, s) => {
      if (this.hidden.has(s)) return;
      series.points.forEach(([left, top], p) => {
        const distance = (left - x) ** 2 + 0.4 * (top - y) ** 2;
        if (distance < least) [least, best] = [distance, [s, p]];
      });
    });
    return best;
  }

  show(place) {
    this.place = place;
    this.tip.hidden = place === null;
    this.cross.setAttribute("visibility", place === null ? "hidden" : "visible");
    if (place === null) return;
    const { label, names, frame, points } = this.series[place[0]];
    const [left, top, x, y, note] = points[place[1]];
    this.ring.setAttribute("cx", left);
    this.ring.setAttribute("cy", top);
    this.down.setAttribute("x1", left);
    this.down.setAttribute("x2", left);
    this.down.setAttribute("y1", frame[0]);
    this.down.setAttribute("y2", frame[1]);
    const lines = [`${names[0]} ${x}`, names[1] && `${names[1]} ${y}`, note];
    this.tip.textContent = [label, ...lines].filter(Boolean).join("\n");
    const isLeft = left < this.width / 2; // the box stays inside the figure
    this.tip.style.left = isLeft ? `calc(${(100 * left) / this.width}% + 12px)` : "auto";
    this.tip.style.right = isLeft ? "auto" : `calc(${100 - (100 * left) / this.width}% + 12px)`;
    this.tip.style.top = `${Math.min(Math.max((100 * top) / this.height, 14), 86)}%`;
  }

  key(event) {
    const shown = this.series.map((_, s) => s)
      .filter((s) => !this.hidden.has(s) && this.series[s].points.length);
    if (event.key === "Escape") return this.show(null);
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    const step = steps[event.key];
    if (!step || !shown.length) return undefined;
    event.preventDefault();
    if (this.place === null) return this.show([shown[0], 0]);
    const at = shown.indexOf(this.place[0]);
    const s = shown[(at + step[0] + shown.length) % shown.length];
    const last = this.series[s].points.length - 1;
    return this.show([s, Math.min(Math.max(this.place[1] + step[1], 0), last)]);
  }

  toggle(index, button) {
    const isHidden = !this.hidden.delete(index);
    if (isHidden) this.hidden.add(index);
    button.setAttribute("aria-pressed", String(!isHidden));
    for (const key of this.series[index].keys) {
      document.getElementById(key)?.classList.toggle("off", isHidden);
    }
    this.show(null);
  }
}

/** A cell's figure, or its text where it has none; empty cells come last either way. */
function cellValue(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.value;
  if (given === undefined) return cell.textContent.trim();
  return given === "" ? null : Number(given);
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const isNumeric = [...body.rows].some((row) => row.cells[column].dataset.value);
      const now = head.getAttribute("aria-sort");
      const isDown = now ? now === "ascending" : isNumeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [cellValue(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return isDown ? compare(b, a) : compare(a, b);
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function themeSwitch(button) {
  const names = ["auto", "light", "dark"];
  const set = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
  };
  let kept = "auto";
  try {
    kept = localStorage.getItem("desmatch-theme") ?? "auto";
  } catch {} // a page from a file may have no storage
  set(names.includes(kept) ? kept : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = names[(names.indexOf(now) + 1) % names.length];
    set(next);
    try {
      localStorage.setItem("desmatch-theme", next);
    } catch {}
  });
}

document.querySelectorAll("figure.plot").forEach((figure) => new Plot(figure));
document.querySelectorAll("table.sortable").forEach(sortable);
themeSwitch(document.querySelector(".theme"));
