// This edge, its clouds, and the link between.

import { by, html, ms, rate } from "./element.js";

function dot(up) {
  return html("span", { class: up === null ? "dot" : up ? "dot up" : "dot down", "aria-hidden": "true" });
}

export function showTopology(edge, state) {
  const stages = edge.model.stages;
  const split = state.deployed?.split_point ?? 0;
  const here = html("div", { class: "node at-edge" },
    html("h3", {}, dot(state.ready), "This edge"),
    html("p", {}, state.ready ? `serves ${state.deployed.weights}` : "serves nothing yet"),
    html("p", { class: "quiet" }, split > 0 ? stages.slice(0, split).join(" ") : "no stage here"));
  const rest = split < stages.length ? stages.slice(split).join(" ") : "no stage there";
  const clouds = state.clouds.map((cloud) => reach(cloud, state, edge, rest));
  by("topology").replaceChildren(html("div", { class: "topology" }, here, html("div", { class: "clouds" }, ...clouds)));
}

function address(url) {
  const [scheme, host] = url.split("://");
  return scheme === "https" ? `${host}, TLS` : host;
}

function reach(cloud, state, edge, rest) {
  const profile = edge.links.find((link) => link.name === state.link.profile);
  const up = profile?.uplink_bps ? `${rate(profile.uplink_bps)} up` : "";
  const wire = html("div", { class: cloud.in_use ? "wire" : "wire idle" }, html("span", {}, state.link.profile), html("br"), up || "\u00a0");
  const health = cloud.up === null ? "not asked yet" : cloud.up ? `answers, ${ms(cloud.rtt_ms)} beside the link` : cloud.problem;
  const role = cloud.standby ? "Standby cloud" : "Cloud";
  return html("div", { class: "reach" }, wire,
    html("div", { class: cloud.in_use ? "node at-cloud" : "node at-cloud unused" },
      html("h3", {}, dot(cloud.up), cloud.in_use ? `${role}, in use` : role),
      html("p", {}, address(cloud.address)),
      html("p", { class: "quiet" }, health),
      cloud.in_use ? html("p", { class: "quiet" }, rest) : null));
}
