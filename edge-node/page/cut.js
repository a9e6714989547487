// The split point: what each would take, what it took, and moving it.

import { change, get, token } from "./api.js";
import { by, bytes, html, ms, rate, wide } from "./element.js";

export class Cut {
  /** `moved`: called when another split point or link profile is in force. */
  constructor(edge, moved) {
    this.edge = edge;
    this.moved = moved;
    this.plan = { rows: [], problem: null };
    this.busy = false;
    this.held = false;
    this.next = null;
    const slider = by("split");
    slider.max = edge.model.stages.length;
    slider.oninput = () => {
      this.held = true;
      this.name(Number(slider.value));
    };
    slider.onchange = () => this.change("split-point", { split_point: Number(slider.value) });
    const select = by("link");
    select.replaceChildren(...edge.links.map((link) => html("option", { value: link.name }, link.name)));
    select.onchange = () => this.change("link-profile", { profile: select.value });
    this.permit();
  }

  /** Whether something may be changed, and why not. */
  permit() {
    const may = this.edge.may_change && token.get() !== "";
    by("split").disabled = by("link").disabled = !may;
    by("token").disabled = !this.edge.may_change;
    if (!this.edge.may_change) this.say("Read-only: this edge has no edge.admin_token.");
    else if (token.get() === "") this.say("Read-only until you give the admin token; it stays in this tab.");
    else this.say("");
  }

  say(text, bad = false) {
    by("may").textContent = text;
    by("may").classList.toggle("bad", bad);
  }

  /** One change after the other; of those that come meanwhile, the last. */
  async change(what, body) {
    this.next = [what, body];
    if (this.busy) return;
    this.busy = true;
    while (this.next) {
      const [name, wish] = this.next;
      this.next = null;
      this.say("changing …");
      try {
        await change(name, wish);
        this.say("");
      } catch (error) {
        this.say(error.message, true);
      }
    }
    this.busy = this.held = false;
    await this.moved();
  }

  /** Predictions of the link profile in force. */
  async predict() {
    try {
      this.plan = await get("plan");
    } catch (error) {
      this.plan = { rows: [], problem: error.message };
    }
    by("plan-note").textContent = this.plan.problem ?? "";
  }

  async show(state) {
    const split = state.deployed?.split_point;
    this.state = state;
    if (!this.held && !this.busy && split !== undefined) {
      by("split").value = split;
      this.name(split);
      by("link").value = state.link.profile;
    }
    const link = this.edge.links.find(({ name }) => name === state.link.profile);
    const speed = link?.uplink_bps ? ` ${rate(link.uplink_bps)} up, ${rate(link.downlink_bps)} down.` : "";
    by("cut-note").textContent = `${state.link.profile}: ${link?.description ?? "a file of its own"}`.replace(/\.?$/, ".") + speed;
    this.rows(state);
  }

  name(split) {
    const { stages, cuts } = this.edge.model;
    const sent = split < stages.length ? `${bytes(cuts[split].bytes)} cross` : "nothing crosses";
    const by_planner = this.state?.auto ? ", by the planner" : "";
    by("split-now").textContent = `${split} of ${stages.length}${by_planner}`;
    by("split").setAttribute("aria-valuetext", `${split}: ${behind(stages, split)}, ${sent}`);
  }

  rows(state) {
    const { stages, cuts } = this.edge.model;
    const predicted = new Map();
    // Where the planner may choose codecs, the quickest stands for its split point.
    for (const row of this.plan.rows) {
      const known = predicted.get(row.split_point);
      if (!known || row.total_ms < known.total_ms) predicted.set(row.split_point, row);
    }
    const measured = new Map(state.splits.map((split) => [split.split_point, split]));
    const all = [...[...predicted.values()].map((row) => row.total_ms), ...state.splits.map((split) => split.p50)];
    const longest = Math.max(...all, 1e-9);
    const row = (_, split) => this.row({
      split, now: split === state.deployed?.split_point, name: behind(stages, split),
      sent: bytes(split < stages.length ? cuts[split].bytes : 0),
      predicted: predicted.get(split)?.total_ms, measured: measured.get(split), longest,
    });
    by("splits").replaceChildren(...Array.from({ length: stages.length + 1 }, row));
  }

  row({ split, now, name, sent, predicted, measured, longest }) {
    const bar = (kind, value) => wide(html("div", { class: value === undefined ? "none" : kind }), (value ?? 0) / longest);
    const took = measured ? html("b", {}, ms(measured.p50)) : "–";
    const attributes = { class: now ? "split now" : "split", "data-split": split, "data-count": measured?.count ?? 0 };
    return html("div", attributes,
      html("span", { class: "name" }, html("b", {}, `${split}`), ` ${name} · `, html("span", { class: "quiet" }, sent)),
      html("div", { class: "bars" }, bar("predicted", predicted), bar("measured", measured?.p50)),
      html("span", { class: "values" }, predicted === undefined ? "" : `${ms(predicted)} / `, took));
  }
}

function behind(stages, split) {
  if (split === 0) return "all in the cloud";
  if (split === stages.length) return "all on the edge";
  return `behind ${stages[split - 1]}`;
}
