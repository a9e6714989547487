// Shows values under the pointer, or where the arrow keys have gone to.
"use strict";
const tip = document.getElementById("tip");

function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, Math.min(y + 12, innerHeight - box.height - 4)) + "px";
}

function number(value) {
  return String(Number(value.toPrecision(5)));
}

// Index of the step that is nearest.
function nearest(steps, step) {
  let low = 0;
  let high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1; else high = middle;
  }
  return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const chart = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg");
  const cursor = svg.querySelector(".cursor");
  const steps = chart.series[0].steps;
  let at = steps.length - 1;

  const place = (step) =>
    chart.left + (step - chart.first) / (chart.last - chart.first) * (chart.right - chart.left);

  function point(x, y) {
    const step = steps[at];
    const lines = chart.series.map((series) => {
      const index = nearest(series.steps, step);
      const where = series.steps[index] === step ? "" : " (step " + series.steps[index] + ")";
      return series.name + ": " + number(series.values[index]) + (chart.unit ? " " + chart.unit : "") + where;
    });
    cursor.setAttribute("x1", place(step));
    cursor.setAttribute("x2", place(step));
    cursor.style.visibility = "visible";
    const box = svg.getBoundingClientRect();
    show(["step " + step].concat(lines).join("\n"), x ?? box.left + place(step) * box.width / svg.viewBox.baseVal.width, y ?? box.top + 20);
  }

  function leave() {
    cursor.style.visibility = "hidden";
    tip.hidden = true;
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const share = (x - chart.left) / (chart.right - chart.left);
    at = nearest(steps, chart.first + share * (chart.last - chart.first));
    point(event.clientX, event.clientY);
  });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") leave();
    if (move === undefined) return;
    event.preventDefault();
    at = Math.max(0, Math.min(steps.length - 1, at + move));
    point();
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
}

for (const bar of document.querySelectorAll("[data-tip]")) {
  bar.addEventListener("pointermove", (event) => show(bar.dataset.tip, event.clientX, event.clientY));
  bar.addEventListener("pointerleave", () => { tip.hidden = true; });
}
