"""From times to a table."""

import datetime
import math
import os
import platform
import subprocess


def collect(into, results):
    for result in results:
        key = (result["rate_mbps"], result["rtt_ms"], result["size"], result["streams"])
        into.setdefault(key, []).extend(result["ms"])


def quantile(values, share):
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def render(root, theirs, ours, kernel, load):
    """A table, and which rows are outside the bounds. `load`: the machine's when ours began in real time;
    none: ours ran in virtual time."""
    if load is None:
        side, flag = "the simulation in virtual time", " --virtual"
    else:
        side, flag = f"`edge-node link` in real time, load average at the beginning {load:.1f}", ""
    lines = [
        "# Cleave's link against the kernel's tbf and netem",
        "",
        f"Completion times of transfers, ms. Kernel: {kernel}. Ours: {side}, {machine(root)}. Made by "
        f"`benches/link-vs-kernel{flag}`. n: repetitions, kernel and ours; p99 is by nearest rank, below "
        "100 the longest.",
        "",
        "| network | bytes | streams | n | median, kernel | ours | off by | p99, kernel | ours | off by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    medians, tails = [], []
    for key in sorted(theirs):
        rate, rtt, size, streams = key
        a, b = theirs[key], ours[key]
        median, tail = [quantile(v, 0.5) for v in (a, b)], [quantile(v, 0.99) for v in (a, b)]
        off = [pair[1] / pair[0] - 1 for pair in (median, tail)]
        name = f"{rate:g} Mbit/s, {rtt:g} ms, {size} bytes, {streams} streams"
        medians.append((abs(off[0]), name))
        tails.append((abs(off[1]), name))
        lines.append(
            f"| {rate:g} Mbit/s, {rtt:g} ms | {size} | {streams} | {len(a)}, {len(b)} "
            f"| {median[0]:.2f} | {median[1]:.2f} | {off[0]:+.1%} "
            f"| {tail[0]:.2f} | {tail[1]:.2f} | {off[1]:+.1%} |"
        )
    for what, offs, bound in (("median", medians, 0.03), ("p99", tails, 0.10)):
        beyond = [f"{name} ({off:.1%})" for off, name in offs if off > bound]
        lines += ["", f"{what}: {len(offs) - len(beyond)} of {len(offs)} rows within {bound:.0%}."]
        if beyond:
            lines += ["Outside: " + "; ".join(beyond) + "."]
    return "\n".join(lines) + "\n"


def machine(root):
    """This machine, today, this commit."""
    commit = ["git", "-C", root, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(commit, capture_output=True, text=True).stdout.strip()
    today = datetime.datetime.now(datetime.timezone.utc)
    release = platform.release().split("-")[0]
    return f"{processor()}, {os.cpu_count()} cores, Linux {release}; {today:%Y-%m-%d}; commit {commit}"


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
