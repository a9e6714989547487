// The last minutes, second by second. The history is kept here; the edge only counts.

import { by, decimal } from "./element.js";
import { Chart } from "./chart.js";

/** Seconds. */
const KEPT = 180;

const short = (value) => (value >= 100 || value === 0 ? value.toFixed(0) : +value.toPrecision(2)).toString();
const per = (now, before, seconds) => (before === undefined || now < before ? null : (now - before) / seconds);

const KINDS = [
  { title: "Latency, ms", series: ["p50", "p95", "p99"], y: short,
    of: ({ requests: { latency_ms: l } }) => [l?.p50 ?? null, l?.p95 ?? null, l?.p99 ?? null] },
  { title: "Requests a second", series: ["answered", "failed"], y: short,
    of: (now, before, s) => ["answered", "failed"].map((name) => per(now.requests[name], before?.requests[name], s)) },
  { title: "Waiting", series: ["requests under way"], y: short, of: (now) => [now.requests.in_flight] },
  { title: "Bytes a second", series: ["up", "down"], y: decimal,
    of: ({ link }, before, s) => [per(link.uplink.bytes, before?.link.uplink.bytes, s),
      per(link.downlink.bytes, before?.link.downlink.bytes, s)] },
  { title: "Queue of the link", series: ["up", "down"], y: decimal,
    of: ({ link }) => [link.uplink.queue_bytes, link.downlink.queue_bytes] },
  { title: "Round trip of the link, ms", series: ["RTT"], y: short, of: ({ link }) => [link.rtt_ms] },
];

export class Live {
  constructor() {
    this.before = undefined;
    const x = (at, last) => (at === last ? "now" : `${Math.round(last - at)} s ago`);
    this.charts = KINDS.map(({ title, series, y, of }) => ({ of, history: [], chart: new Chart({ title, series, x, y }) }));
    by("live").replaceChildren(...this.charts.map(({ chart }) => chart.element));
  }

  add(state) {
    const at = state.uptime_s;
    // Another process: its counters begin at 0.
    if (this.before && at < this.before.uptime_s) {
      this.before = undefined;
      for (const each of this.charts) each.history = [];
    }
    const seconds = this.before ? at - this.before.uptime_s : 1;
    for (const { of, history, chart } of this.charts) {
      history.push({ at, values: of(state, this.before, seconds) });
      while (history[0].at < at - KEPT) history.shift();
      chart.show(history);
    }
    this.before = state;
  }
}
