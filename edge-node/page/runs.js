// Training curves of the runs in the edge's folder.

import { get } from "./api.js";
import { by, html } from "./element.js";
import { Chart } from "./chart.js";

const short = (value) => `${+value.toPrecision(3)}`;
const MEASURES = [
  { title: "Loss", of: (row) => row.loss, y: short },
  { title: "Accuracy, %", of: (row) => (row.accuracy === undefined ? null : 100 * row.accuracy), y: short },
  { title: "Perplexity", of: (row) => row.perplexity ?? null, y: short },
  { title: "Root mean squared error", of: (row) => row.rmse ?? null, y: short },
];

export async function showRuns() {
  const { runs, all } = await get("runs");
  const select = by("run");
  if (runs.length === 0) {
    by("run-note").textContent = "No run yet: edge-node train makes one.";
    return;
  }
  const kept = select.value;
  select.replaceChildren(...runs.map(({ run, deployed }) => html("option", { value: run }, deployed ? `${run}, deployed` : run)));
  if (all > runs.length) by("runs-title").textContent = `Training: the newest ${runs.length} of ${all} runs`;
  const meant = runs.find(({ run }) => run === kept) ?? runs.find(({ deployed }) => deployed) ?? runs[0];
  select.value = meant.run;
  select.disabled = false;
  select.onchange = () => showRun(runs.find(({ run }) => run === select.value));
  await showRun(meant);
}

async function showRun({ run, family, split_point: split, batch_size: batch, codec }) {
  const note = by("run-note");
  try {
    const { steps, rows, validations } = await get(`runs/${encodeURIComponent(run)}`);
    note.textContent = `${family}, split point ${split}, batch ${batch}, ${codec}; ${steps} steps`;
    const charts = MEASURES.map((measure) => chart(measure, rows, validations)).filter((found) => found);
    by("curves").replaceChildren(...charts);
  } catch (error) {
    note.textContent = error.message;
    by("curves").replaceChildren();
  }
}

function chart({ title, of, y }, rows, validations) {
  const points = rows.map((row) => ({ at: row.step, values: [of(row)] }));
  const marks = validations.map((line) => ({ at: line.step, values: [of(line)] }));
  if (![...points, ...marks].some((point) => Number.isFinite(point.values[0]))) return null;
  const x = (at, last) => (at === last ? `step ${at}` : `${at}`);
  const made = new Chart({ title, series: ["training", "validation"], x, y });
  made.show(points, marks);
  return made.element;
}
