// What the model answered, what crossed the cut for it, and where the time went.

import { by, bytes, html, ms, wide } from "./element.js";
import { ink } from "./draw.js";

const PARTS = ["head", "encode", "uplink", "tail", "downlink", "decode"];
/** Classes and answers that are shown. */
const MOST_CLASSES = 10;
const MOST_TIMES = 6;

export function softmax(values) {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** `reply`: that of the inference protocol; `took`: ms until it was here. */
export function showAnswer(reply, took) {
  const shares = softmax(reply.outputs[0].data);
  const best = shares.indexOf(Math.max(...shares));
  by("answer").replaceChildren(
    html("div", { class: "verdict" },
      html("b", { id: "verdict", "data-class": best }, `${best}`),
      html("span", { class: "quiet" }, `${(100 * shares[best]).toFixed(1)} % sure, split point ${reply.parameters.split_point}, ${ms(took)}`)),
  );
  const order = shares.map((share, i) => [share, i]);
  if (shares.length > MOST_CLASSES) order.sort((a, b) => b[0] - a[0]).splice(MOST_CLASSES);
  by("classes").replaceChildren(...order.map(([share, i]) =>
    html("div", { class: i === best ? "class best" : "class" },
      html("span", {}, `${i}`),
      html("div", { class: "bar" }, wide(html("div"), share)),
      html("span", {}, `${(100 * share).toFixed(1)} %`))));
}

export function showProblem(message) {
  by("answer").replaceChildren(html("p", { class: "note bad" }, message));
  by("classes").replaceChildren();
}

export function showNothing() {
  by("answer").replaceChildren(html("p", { class: "quiet" }, "Nothing was asked yet."));
  by("classes").replaceChildren();
}

export class Times {
  constructor() {
    this.answers = [];
    by("time-legend").replaceChildren(...PARTS.map((part) => html("span", { class: `key ${part}` }, part)),
      html("span", { class: "key other" }, "the rest of what the client waits"));
  }

  add(parameters, took) {
    this.answers.unshift({ parameters, took });
    this.answers.splice(MOST_TIMES);
    const longest = Math.max(...this.answers.map(({ parameters, took }) => Math.max(took, known(parameters))));
    by("times").replaceChildren(...this.answers.map((answer, i) => row(answer, longest, i > 0)));
  }
}

const parts = (parameters) => PARTS.map((part) => [part, parameters[`${part}_ms`] ?? 0]);
const known = (parameters) => parts(parameters).reduce((sum, [, value]) => sum + value, 0);

function row({ parameters, took }, longest, past) {
  const all = [...parts(parameters), ["other", Math.max(0, took - known(parameters))]];
  const spoken = all.map(([part, value]) => `${part} ${ms(value)}`).join(", ");
  return html("div", { class: past ? "time past" : "time" },
    html("span", {}, `split point ${parameters.split_point}`),
    html("div", { class: "stack", role: "img", "aria-label": spoken, title: spoken },
      ...all.filter(([, value]) => value > 0).map(([part, value]) => wide(html("div", { class: part }), value / longest))),
    html("span", {}, ms(took)));
}

export class Maps {
  constructor() {
    this.shown = null;
  }

  show(activation, stages) {
    this.shown = activation;
    const { split_point: split, codec, bytes: sent, tensors } = activation;
    if (tensors.length === 0) {
      by("maps-note").textContent = `Nothing: at split point ${split} the whole model runs on the edge.`;
      by("maps").replaceChildren();
      return;
    }
    const place = split === 0 ? "The input itself" : `Behind ${stages[split - 1]}`;
    const shapes = tensors.map((tensor) => tensor.shape.join(" × ")).join(", ");
    by("maps-note").textContent = `${place}: ${shapes}, ${bytes(sent)} as ${codec}.`;
    this.paint();
  }

  clear() {
    this.shown = null;
    by("maps-note").textContent = "The activation of what you draw, channel by channel.";
    by("maps").replaceChildren();
  }

  paint() {
    if (!this.shown) return;
    by("maps").replaceChildren(...this.shown.tensors.flatMap(pictures));
    // Colours are those that a canvas has on the page.
    for (const canvas of by("maps").querySelectorAll("canvas")) ink(canvas, ...canvas.drawn);
  }
}

function pictures(tensor) {
  const { name, maps, channels } = tensor;
  let { height, width } = tensor;
  const values = maps.flat();
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const scale = high > low ? 1 / (high - low) : 0;
  // A single row is laid in lines, so that one sees it.
  if (height === 1 && width > 16) {
    width = Math.ceil(Math.sqrt(width));
    height = Math.ceil(tensor.width / width);
  }
  const canvases = maps.map((map, i) => {
    const canvas = html("canvas", {
      class: maps.length > 1 ? "several" : "one", role: "img", "aria-label": `${name}, channel ${i + 1} of ${channels}`,
    });
    canvas.drawn = [map.map((value) => (value - low) * scale), height, width];
    return canvas;
  });
  const range = `from ${+low.toPrecision(3)} (paper) to ${+high.toPrecision(3)} (ink)`;
  const count = channels > maps.length ? `${maps.length} of ${channels} channels` : `${channels} channel${channels > 1 ? "s" : ""}`;
  return [...canvases, html("p", { class: "quiet" }, `${count}, ${range}`)];
}
