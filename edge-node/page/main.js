// Puts the page together, and asks the edge once a second how it is.

import { activation, get, infer } from "./api.js";
import { Maps, Times, showAnswer, showNothing, showProblem } from "./answer.js";
import { bitmap } from "./bitmap.js";
import { Cut } from "./cut.js";
import { Drawing, ink } from "./draw.js";
import { by } from "./element.js";
import { Live } from "./live.js";
import { showRuns } from "./runs.js";
import { themes, tokens } from "./settings.js";
import { showTopology } from "./topology.js";

/** Between two looks, and between a stroke's end and the question, ms. */
const TICK = 1000;
const PAUSE = 400;
const MANY = 20;
/** Looks between two readings of the list of runs. */
const RUNS_EVERY = 15;

const [maps, times, live] = [new Maps(), new Times(), new Live()];
let edge = null;
let cut = null;
let drawing = null;
let pending = 0;
let asked = 0;
let profile = null;

/** [height, width] of what can be drawn for this model; null if nothing can. */
function drawable({ inputs }) {
  const [port] = inputs;
  const [channels, ...sides] = port.shape;
  const fits = inputs.length === 1 && port.datatype === "FP32" && channels === 1 && sides.length === 2;
  return fits && Math.max(...sides) <= 64 ? sides : null;
}

function drawn() {
  const size = drawable(edge.model);
  const values = size && bitmap(drawing.strokes, ...size);
  if (values) ink(by("sent"), values, ...size);
  return values;
}

function request(values) {
  const [{ name, datatype, shape }] = edge.model.inputs;
  return { inputs: [{ name, datatype, shape: [1, ...shape], data: values }] };
}

async function ask(values) {
  const begin = performance.now();
  const reply = await infer(edge.model.name, request(values));
  const took = performance.now() - begin;
  times.add(reply.parameters, took);
  return [reply, took];
}

/** Whether what is shown is not yet about what is drawn. */
function busy(now) {
  by("answer").setAttribute("aria-busy", now);
}

/** Asks about the drawing; an answer to an older one is not shown. */
async function question() {
  asked += 1;
  const own = asked;
  const values = drawn();
  by("many").disabled = !values;
  if (!values) {
    showNothing();
    maps.clear();
    by("sent").getContext("2d").clearRect(0, 0, by("sent").width, by("sent").height);
    busy(false);
    return;
  }
  try {
    const [reply, took] = await ask(values);
    if (own !== asked) return;
    showAnswer(reply, took);
    const crossed = await activation(request(values));
    if (own === asked) maps.show(crossed, edge.model.stages);
  } catch (error) {
    if (own === asked) showProblem(error.message);
  }
  if (own === asked) busy(false);
}

async function many() {
  const values = drawn();
  if (!values) return;
  by("many").disabled = true;
  try {
    for (let i = 0; i < MANY; i += 1) await ask(values);
    await look();
  } catch (error) {
    showProblem(error.message);
  }
  by("many").disabled = false;
}

function status(up, text) {
  by("status").firstElementChild.className = up ? "dot up" : "dot down";
  if (by("status-text").textContent !== text) by("status-text").textContent = text;
}

async function start() {
  edge = await get("edge");
  const { name, family, stages } = edge.model;
  by("what").textContent = `${name}: ${family} of ${stages.length} stages`;
  by("foot").textContent = `Cleave ${edge.version}`;
  cut = new Cut(edge, async () => {
    await look();
    if (drawing.strokes.length > 0) await question();
  });
  if (!drawable(edge.model)) {
    const [{ name: input, shape }] = edge.model.inputs;
    by("draw-note").textContent = `This model does not take drawings: its input ${input} is ${shape.join(" × ")}.`;
    for (const id of ["draw", "clear", "many"]) by(id).hidden = true;
    document.querySelector(".sent").hidden = true;
  }
}

async function look() {
  const state = await get("state");
  const { deployed } = state;
  status(state.ready, deployed ? `split at ${deployed.split_point}, ${state.link.profile}` : "nothing is deployed yet");
  if (profile !== state.link.profile) {
    profile = state.link.profile;
    // Not waited for: a link is simulated for a while.
    cut.predict().then(() => cut.rows(state));
  }
  cut.show(state);
  showTopology(edge, state);
  return state;
}

async function watch() {
  let looks = 0;
  for (;;) {
    if (!document.hidden) {
      try {
        if (!edge) await start();
        // Rates are of whole seconds: a look in between tells the charts nothing.
        live.add(await look());
        if (looks % RUNS_EVERY === 0) await showRuns();
        looks += 1;
      } catch (error) {
        status(false, error.message);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, TICK));
  }
}

drawing = new Drawing(by("draw"), {
  // Half a digit is no question.
  begun: () => {
    clearTimeout(pending);
    asked += 1;
    busy(true);
  },
  changed: () => {
    clearTimeout(pending);
    busy(true);
    const pause = drawing.strokes.length > 0 ? PAUSE : 0;
    pending = setTimeout(() => edge && question(), pause);
  },
});
by("clear").onclick = () => drawing.clear();
by("many").onclick = many;
tokens(() => cut?.permit());
themes(() => {
  drawing.paint();
  maps.paint();
  if (edge) drawn();
});
watch();
