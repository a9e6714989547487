"""Cells and bars of the two reports."""

from throughput_parts.rounds import median
from verdicts import NOBODY, Verdict


def rate(seen):
    """Median of answers a second."""
    value = median(seen, "requests_per_s")
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def latency(seen):
    """Medians of p50 and p99, ms."""
    return f"{median(seen, 'p50_ms'):.1f} / {median(seen, 'p99_ms'):.1f}"


def no_errors(what, counts):
    kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))
    return Verdict(f"{what}: requests that failed", NOBODY, "0", kinds or "0", not counts)
