// Lines over time or steps, drawn as large as there is room for.

import { html, svg } from "./element.js";

const LEFT = 52;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const CLASSES = ["one-line", "second", "third"];

/** `series`: names; `x`: label of a place on the axis; `y`: text of a value. */
export class Chart {
  constructor({ title, series, x, y, points = [] }) {
    Object.assign(this, { title, series, x, y, points });
    this.values = series.map(() => html("b", {}, ""));
    const named = (name, i) => html("span", { class: `key ${CLASSES[i]}` }, html("span", {}, name, " ", this.values[i]));
    const keys = series.map(named);
    this.picture = svg("svg", { role: "img", "aria-label": title });
    this.element = html("figure", { class: "chart" }, html("figcaption", {}, html("h3", {}, title), ...keys), this.picture);
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  /** `points`: { at, values }, a value for each series or null; `marks`: points that are dots, for the second series. */
  show(points, marks = []) {
    this.points = points;
    this.marks = marks;
    const last = points.at(-1)?.values ?? [];
    this.values.forEach((value, i) => {
      const dots = i === 1 && marks.length > 0 ? marks.at(-1).values[0] : last[i];
      value.textContent = dots === null || dots === undefined ? "–" : this.y(dots);
    });
    const spoken = this.series.map((name, i) => `${name} ${this.values[i].textContent}`).join(", ");
    this.picture.setAttribute("aria-label", `${this.title}: ${spoken}`);
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.picture;
    if (width === 0) return;
    const all = [...this.points, ...(this.marks ?? [])];
    const values = all.flatMap((point) => point.values).filter((value) => Number.isFinite(value));
    const top = nice(Math.max(...values, 0));
    const [first, last] = [all.at(0)?.at ?? 0, Math.max(...all.map((point) => point.at), 1)];
    const right = width - RIGHT;
    const x = (at) => LEFT + ((at - first) / Math.max(last - first, 1e-9)) * (right - LEFT);
    const y = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - TOP);
    // Half of a small whole may have no label of its own.
    const ticks = [0, top / 2, top].filter((value, i, all) => i !== 1 || all.every((other, j) => j === i || this.y(other) !== this.y(value)));
    const parts = ticks.flatMap((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 7, y: y(value) + 4, "text-anchor": "end" }, this.y(value)),
    ]);
    if (all.length > 1) {
      parts.push(
        svg("text", { x: LEFT, y: height - 4 }, this.x(first, last)),
        svg("text", { x: right, y: height - 4, "text-anchor": "end" }, this.x(last, last)),
      );
    }
    this.series.forEach((_, i) => parts.push(...lines(this.points, i, x, y)));
    for (const mark of this.marks ?? []) {
      if (Number.isFinite(mark.values[0])) {
        parts.push(svg("circle", { class: CLASSES[1], cx: x(mark.at), cy: y(mark.values[0]), r: 2.6 }));
      }
    }
    this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.picture.replaceChildren(...parts);
  }
}

/** A line for each stretch without a gap. */
function lines(points, i, x, y) {
  const stretches = [[]];
  for (const { at, values } of points) {
    if (Number.isFinite(values[i])) stretches.at(-1).push(`${x(at).toFixed(1)},${y(values[i]).toFixed(1)}`);
    else stretches.push([]);
  }
  return stretches
    .filter((stretch) => stretch.length > 1)
    .map((stretch) => svg("polyline", { class: CLASSES[i], points: stretch.join(" ") }));
}

/** The next of 1, 2, 5 times a power of ten; 1 for nothing. */
function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
}
