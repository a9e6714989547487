"""Lines of the two reports."""

import statistics

from throughput_parts.rounds import median


def rate(seen):
    """Median of answers a second."""
    value = median(seen, "requests_per_s")
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def latency(seen):
    """Medians of p50 and p99, ms."""
    return f"{median(seen, 'p50_ms'):.1f} / {median(seen, 'p99_ms'):.1f}"


def spread(ratios):
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def at_least(what, ratios, bar):
    return what, spread(ratios), f"≥ {bar:g}", statistics.median(ratios) >= bar


def at_most(what, ratios, bar):
    return what, spread(ratios), f"≤ {bar:g}", statistics.median(ratios) <= bar


def no_errors(what, counts):
    kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))
    return f"{what}: requests that failed", kinds or "0", "0", not counts


def bars(verdicts):
    rows = [(*shown, "yes" if met else "**no**") for *shown, met in verdicts]
    return table(["what", "median (range)", "bar", "met"], rows)
