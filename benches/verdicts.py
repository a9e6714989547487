"""What a benchmark says of its bars: a table in its report, and JSON beside it, from which benches/all makes one page.

    judged = [verdicts.judge("LeNet: requests/s", "the unsplit model", ratios, "≥", 0.9)]
    text = "\\n".join([*lines, *verdicts.bars(judged)]) + "\\n"
    verdicts.conclude("throughput", text, judged, options.output)
"""

import json
import operator
import statistics
import sys
import typing

import nodes

SUFFIX = ".verdicts.json"
HOLDS = {"≥": operator.ge, "≤": operator.le, "<": operator.lt}
HEADS = ["work", "against", "bar", "measured", "met"]
# What is held against a number instead of against someone.
NOBODY = "–"


class Verdict(typing.NamedTuple):
    """One bar: what was measured, and beside whom. `measured` is the median and the range."""

    work: str
    against: str
    bar: str
    measured: str
    met: bool

    def cells(self):
        return [*self[:-1], "yes" if self.met else "**no**"]


def spread(values, digits=2):
    """The median and the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def judge(work, against, values, sign, bar, digits=2, unit=""):
    """Whether the median of the rounds' values is on the right side of the bar; without a unit they are ratios."""
    met = HOLDS[sign](statistics.median(values), bar)
    shown = (f"{text} {unit}".rstrip() for text in (f"{sign} {bar:g}", spread(values, digits)))
    return Verdict(work, against, *shown, met)


def table(heads, rows):
    """In Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def bars(verdicts):
    return table(HEADS, (verdict.cells() for verdict in verdicts))


def beside(report):
    """Where the verdicts of a report are."""
    return report.with_suffix(SUFFIX)


def write(report, verdicts):
    found = {"where": nodes.machine(), "verdicts": [verdict._asdict() for verdict in verdicts]}
    nodes.write(beside(report), json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def read(report):
    """The line about where they were measured, and the verdicts."""
    found = json.loads(beside(report).read_text())
    return found["where"], [Verdict(**verdict) for verdict in found["verdicts"]]


def conclude(name, text, verdicts, report):
    """Prints the report, and keeps it with its verdicts if a file is named. Ends with 1 if a bar is missed."""
    print(text)
    if report:
        nodes.write(report, text)
        write(report, verdicts)
    if not all(verdict.met for verdict in verdicts):
        sys.exit(f"{name}: not good enough")
