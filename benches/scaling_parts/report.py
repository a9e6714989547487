"""The report of benches/scaling, its table, and its images."""

import math

import nodes
import verdicts
from scaling_parts import plot, theory

BY_REPLICAS, BY_EDGES = "scaling-replicas.svg", "scaling-edges.svg"
# More refusals than these are no chance, and a point is hollow.
REFUSED = 1e-4
# Replicas are enough if p99 is at most so many times that with the most replicas.
ENOUGH = 1.1
PERCENTILES = [("p50", "2 5"), ("p95", "8 4"), ("p99", "")]
COLUMNS = ["mean", "p50", "p95", "p99"]
# What a request may cost the cloud with some number of edges, of what it costs with another.
MAX_GROWTH = 1.1


def judged(seen):
    costs = [level["paced"]["cloud_s"] for level in seen["levels"]]
    first, last = (seen["levels"][at]["edges"] for at in (0, -1))
    what = f"cloud's processor time for a request, {first} to {last} edges: most over least"
    return [verdicts.judge(what, verdicts.NOBODY, [max(costs) / min(costs)], "≤", MAX_GROWTH)]


def edges(line):
    return line["scenario"]["cells"] * line["scenario"]["edges_per_cell"]


def load(line):
    """Share of the time in which the threads of all replicas would compute if they refused nothing."""
    scenario = line["scenario"]
    service_s = sum(scenario["service_s"]) / len(scenario["service_s"])
    return edges(line) * scenario["rate"] * service_s / (scenario["replicas"] * scenario["threads"])


def predicted_wait_ms(line):
    scenario = line["scenario"]
    service = scenario["service_s"]
    wait = theory.mean_wait_s(scenario["threads"], load(line), sum(service) / len(service), theory.variation(service))
    return wait * 1e3


def of_rate(lines, rate):
    return [line for line in lines if line["scenario"]["rate"] == rate]


def images(options, by_replicas, by_edges):
    """SVG by name."""
    number = edges(by_replicas[0])
    hollow = lambda line: line["seen"]["refused"] > REFUSED
    series = []
    for colour, rate in zip(plot.COLOURS, options.rates):
        own = of_rate(by_replicas, rate)
        for name, dash in PERCENTILES:
            points = [(line["scenario"]["replicas"], line["seen"]["ms"]["total"][name], hollow(line)) for line in own]
            series.append((f"{rate:g}/s for an edge, {name}", colour, dash, points))
    by_count = plot.lines(f"{number:,} edges: latency by the number of replicas (hollow: some refused)",
                          "replicas", "latency, ms", series, log_x=True)
    replicas = by_edges[0]["scenario"]["replicas"]
    series = [(name, colour, "", [(edges(line), line["seen"]["ms"]["total"][name], hollow(line)) for line in by_edges])
              for colour, (name, _) in zip(plot.COLOURS, PERCENTILES)]
    by_number = plot.lines(f"{replicas} replicas, {options.rate:g}/s for an edge: latency by the number of edges "
                           "(hollow: some refused)", "edges", "latency, ms", series)
    return {BY_REPLICAS: by_count, BY_EDGES: by_number}


def render(options, plan, seen, by_replicas, by_edges, in_step, folder):
    name = options.output.with_suffix(".csv").name if options.output else "scaling.csv"
    text = ["# Scaling, measured and simulated", "",
            f"{nodes.machine()}. Made by `benches/scaling`; [scaling.md](../scaling.md) has the method and its limits, "
            f"[{name}]({name}) all that was simulated.", ""]
    text += cost(seen)
    text += simulated(options, plan, by_replicas, folder)
    text += knee(options, plan, by_replicas)
    text += varied(options, plan, by_edges, in_step, folder)
    return "\n".join(text) + "\n"


def cost(seen):
    """What was measured."""
    text = ["## What an edge costs", "", f"{seen['where']}. LeNet at split point 4 of 6, both nodes and all edges on this "
            f"machine, over loopback, without TLS. Paced: {seen['pace']:g} requests a second of all edges together. Busy: "
            "each edge is asked as soon as it has answered.", "",
            "| edges | cloud's processor time for a request, paced, µs | busy, µs | busy, requests/s | of it in compute "
            "threads, paced, µs | `tail_ms` p50, paced | p99 | bytes up | bytes down |",
            "|---|---|---|---|---|---|---|---|---|"]
    for level in seen["levels"]:
        paced, busy = level["paced"], level["busy"]
        text.append(f"| {level['edges']} | {paced['cloud_s'] * 1e6:.0f} | {busy['cloud_s'] * 1e6:.0f} | {busy['per_s']:.0f} "
                    f"| {paced['compute_s'] * 1e6:.0f} | {paced['tail_ms']['p50']:.3f} | {paced['tail_ms']['p99']:.3f} "
                    f"| {paced['up_bytes']:.0f} | {paced['down_bytes']:.0f} |")
    text += ["", f"While nobody asks, over {seen['idle_seconds']:g} s:", "",
             "| edges | cloud's memory, MB | more for each further edge, kB | cloud's processor time for an edge, µs/s "
             "| an edge's own, µs/s | an edge's memory, MB |", "|---|---|---|---|---|---|"]
    for level in seen["levels"]:
        more = "–" if level["bytes_per_edge"] is None else f"{level['bytes_per_edge'] / 1e3:.0f}"
        text.append(f"| {level['edges']} | {level['resident_bytes'] / 1e6:.1f} | {more} "
                    f"| {level['idle_cores_per_edge'] * 1e6:.0f} | {level['edge_idle_cores'] * 1e6:.0f} "
                    f"| {level['edge_resident_bytes'] / 1e6:.1f} |")
    return [*text, "", *verdicts.bars(judged(seen)), ""]


def simulated(options, plan, lines, folder):
    scenario = lines[0]["scenario"]
    kind = "always the mean" if options.service == "fixed" else "distributed as measured"
    text = ["## Simulated", "",
            f"{edges(lines[0]):,} edges in {scenario['cells']:,} cells of `{scenario['profile']}`, which each share a cell's "
            f"rate; requests of {scenario['up_bytes']} bytes, answers of {scenario['down_bytes']}. A replica has "
            f"{scenario['threads']} threads, of which a request occupies one for {plan.mean_service * 1e6:.0f} µs ({kind}), and "
            f"room for {scenario['queue']} that wait. {scenario['seconds']:g} virtual seconds after {scenario['warm_up_s']:g} of "
            f"warm-up, seed {scenario['seed']}. Load: what all threads would have to do, over what they can; in the busiest "
            "replica, what its threads did. The wait is that for a thread; predicted: M/D/k's mean for the load of all "
            "replicas together.", "", f"![Latency by the number of replicas]({folder}/{BY_REPLICAS})", "", *HEADING]
    return [*text, *(row(line) for line in lines), ""]


HEADING = [
    "| edges | rate, 1/s | replicas | load | busiest | offered, 1/s | answered, 1/s | refused, % | p50, ms | p95 | p99 "
    "| uplink p50 | p99 | wait mean | predicted | p99 | downlink p50 | p99 | uplinks' airtime, % (most) |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
]


def row(line):
    scenario, seen = line["scenario"], line["seen"]
    ms = seen["ms"]
    wait = predicted_wait_ms(line)
    air = seen["uplink"]
    cells = [
        f"{edges(line):,}", f"{scenario['rate']:g}", scenario["replicas"], f"{load(line):.3f}",
        f"{seen['replicas']['most']:.3f}", f"{seen['offered_per_s']:.0f}", f"{seen['answered_per_s']:.0f}",
        f"{seen['refused'] * 100:.3f}", *(f"{ms['total'][name]:.1f}" for name in ("p50", "p95", "p99")),
        f"{ms['uplink']['p50']:.1f}", f"{ms['uplink']['p99']:.1f}", f"{ms['wait']['mean']:.3f}",
        "–" if math.isinf(wait) else f"{wait:.3f}", f"{ms['wait']['p99']:.2f}",
        f"{ms['downlink']['p50']:.1f}", f"{ms['downlink']['p99']:.1f}",
        "–" if air is None else f"{air['mean'] * 100:.1f} ({air['most'] * 100:.1f})",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def knee(options, plan, lines):
    text = ["## How many replicas", "",
            "By the formula N λ S / (k ρ), and the fewest of those that were simulated with which nothing is refused, and with "
            f"which p99 is at most {ENOUGH:g} times that with the most.", "",
            f"| rate of an edge, 1/s | formula, load 1 | formula, load {theory.PLANNED:g} | fewest without refusals | fewest with "
            "that p99 | load there | tried |", "|---|---|---|---|---|---|---|"]
    for rate in options.rates:
        own = of_rate(lines, rate)
        best = own[-1]["seen"]["ms"]["total"]["p99"]
        willing = [line for line in own if line["seen"]["refused"] <= REFUSED]
        quick = [line for line in willing if line["seen"]["ms"]["total"]["p99"] <= ENOUGH * best]
        few = lambda found: str(found[0]["scenario"]["replicas"]) if found else "more than tried"
        tried = ", ".join(str(line["scenario"]["replicas"]) for line in own)
        text.append(f"| {rate:g} | {plan.needed(rate):.2f} | {plan.needed(rate, theory.PLANNED):.2f} | {few(willing)} "
                    f"| {few(quick)} | {f'{load(quick[0]):.3f}' if quick else '–'} | {tried} |")
    return [*text, ""]


def varied(options, plan, lines, in_step, folder):
    text = ["## More edges, as many replicas", "", f"![Latency by the number of edges]({folder}/{BY_EDGES})", "", *HEADING]
    text += [row(line) for line in lines]
    text += ["", "The same number of edges as above in cells whose slots begin at the same instant, seen from the cloud, so that "
             "requests come in bursts:", "", *HEADING, row(in_step)]
    return text


def table(lines):
    """All that was simulated, CSV."""
    parts = ["total", "uplink", "wait", "tail", "downlink"]
    names = ["edges", "cells", "rate", "replicas", "threads", "queue", "in_step", "load", "offered_per_s", "answered_per_s",
             "refused", "under_way", "replica_mean", "replica_most", "uplink_mean", "uplink_most", "downlink_mean",
             "downlink_most", "predicted_wait_ms", *(f"{part}_{column}_ms" for part in parts for column in COLUMNS)]
    rows = [",".join(names)]
    for line in lines:
        scenario, seen = line["scenario"], line["seen"]
        of = lambda name, key: seen[name][key] if seen[name] else math.nan
        values = [
            edges(line), scenario["cells"], scenario["rate"], scenario["replicas"], scenario["threads"], scenario["queue"],
            int(scenario["aligned"]), load(line), seen["offered_per_s"], seen["answered_per_s"], seen["refused"],
            seen["under_way"], seen["replicas"]["mean"], seen["replicas"]["most"], of("uplink", "mean"), of("uplink", "most"),
            of("downlink", "mean"), of("downlink", "most"), predicted_wait_ms(line),
            *(seen["ms"][part][column] for part in parts for column in COLUMNS),
        ]
        rows.append(",".join(f"{value:.6g}" for value in values))
    return "\n".join(rows) + "\n"
