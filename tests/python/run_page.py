"""Checks a page of `edge-node report`, and its trace, against what the run recorded.

    run_page.py RUN_FOLDER PAGE.html TRACE.json

The page is parsed as browsers parse it, and any error of its markup is an error here. Where the run
has no timeline, TRACE.json is -.
"""

import json
import pathlib
import re
import sys

import html5lib

XHTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
PARTS = {
    "head-forward": ("edge", "head forward"),
    "encode": ("edge", "encode"),
    "uplink": ("uplink", "uplink"),
    "tail": ("cloud", "tail"),
    "downlink": ("downlink", "downlink"),
    "decode": ("edge", "decode"),
    "head-backward": ("edge", "head backward"),
    "update": ("edge", "update"),
}


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_self_contained(text, root):
    for element in root.iter():
        assert not ({"src", "href", "{http://www.w3.org/1999/xlink}href"} & set(element.attrib)), element
        assert element.tag not in (XHTML + "link", XHTML + "img", XHTML + "iframe"), element.tag
    assert not re.search(r"url\(|@import|https?://|fetch\(|import\(", text)


def check_described(root):
    """Every picture has a name and a text, and everything that is referred to by id exists once."""
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids)), ids
    pictures = list(root.iter(SVG + "svg"))
    assert pictures
    for picture in pictures:
        assert picture.attrib["role"] == "img"
        title, description = picture.find(SVG + "title"), picture.find(SVG + "desc")
        assert title.text.strip() and description.text.strip()
        referred = picture.attrib["aria-labelledby"].split()
        assert referred == [title.attrib["id"], description.attrib["id"]], referred
    assert root.attrib["lang"] == "en"


def points_of(figure, series):
    for group in figure.iter(SVG + "g"):
        if group.attrib.get("data-series") == series:
            points = [p for line in group.iter(SVG + "polyline") for p in line.attrib["points"].split()]
            marks = list(group.iter(SVG + "circle"))
            return len(points), len(marks)
    raise AssertionError(f"{figure.attrib['id']} has no series {series}")


def check_curves(root, lines):
    steps = [line for line in lines if line["kind"] == "step"]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert 0 < len(steps) <= 400, "a longer run's points are means of several steps"
    figures = {f.attrib["id"]: f for f in root.iter(XHTML + "figure")}
    overlap = sum("overlap" in step for step in steps)
    expected = {
        "loss": [("training", len(steps))],
        "accuracy": [("training", len(steps))],
        "speed": [("steps a second", len(steps))],
        "time": [(name, len(steps)) for name in ["whole step", "head", "link", "tail"]],
        "bytes": [("up", len(steps)), ("down", len(steps))],
        "rate": [("learning rate", len(steps))],
        "overlap": [("overlap", overlap)] if overlap else [],
    }
    for chart, series in expected.items():
        for name, count in series:
            assert points_of(figures[f"chart-{chart}"], name)[0] == count, (chart, name)
    assert ("chart-overlap" in figures) == (overlap > 0)
    for chart in ["loss", "accuracy"]:
        assert points_of(figures[f"chart-{chart}"], "validation")[1] == len(validations)

    hover = json.loads(figures["chart-loss"].find(XHTML + "script").text)
    by_name = {series["name"]: series for series in hover["series"]}
    assert by_name["training"]["steps"] == [step["step"] for step in steps]
    for name, recorded in [("training", steps), ("validation", validations)]:
        shown = by_name[name]["values"]
        assert len(shown) == len(recorded)
        for value, line in zip(shown, recorded):
            assert abs(value - line["loss"]) <= 1e-6 * abs(line["loss"]), (value, line)

    tables = {t.find(XHTML + "caption").text: t for t in root.iter(XHTML + "table")}
    for caption, count in [("Values of", len(steps)), ("Validation after", len(validations))]:
        [table] = [t for text, t in tables.items() if text.startswith(caption)]
        assert len(list(table.find(XHTML + "tbody"))) == count


def check_timeline(root, timeline):
    recorded = timeline[-1]
    [figure] = [f for f in root.iter(XHTML + "figure") if f.attrib["id"] == "timeline"]
    bars = [r for r in figure.iter(SVG + "rect") if "bar" in r.attrib["class"].split()]
    assert len(bars) == len(recorded["spans"])
    [table] = [t for t in root.iter(XHTML + "table") if t.attrib.get("id") == "spans"]
    rows = [[cell.text for cell in row] for row in table.find(XHTML + "tbody")]
    begin = min(span["start_ms"] for span in recorded["spans"])
    ms = lambda value: f"{value:.3f}"
    want = [
        [PARTS[s["lane"]][1], str(s["micro_batch"]), ms(s["start_ms"] - begin), ms(s["end_ms"] - begin)]
        for s in recorded["spans"]
    ]
    assert sorted(row[:4] for row in rows) == sorted(want)


def check_trace(trace, timeline):
    """What the Trace Event Format asks of complete and metadata events, and that all spans are there."""
    events = trace["traceEvents"]
    named = set()
    threads = {}
    for event in events:
        assert isinstance(event["name"], str) and isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"].rsplit("_", 2)[0] in ("process", "thread", "process_sort", "thread_sort")
            named.add((event["name"], event["pid"], event["tid"]))
            continue
        assert event["ph"] == "X" and event["ts"] >= 0 and event["dur"] >= 0, event
        threads.setdefault((event["pid"], event["tid"]), []).append(event)
    for (process, thread), own in threads.items():
        assert ("thread_name", process, thread) in named, (process, thread)
        assert any(name == "process_name" and pid == process for name, pid, _ in named), process
        # Complete events of a thread nest or are apart.
        ends = []
        for event in sorted(own, key=lambda e: (e["ts"], -e["dur"])):
            end = event["ts"] + event["dur"]
            while ends and ends[-1] <= event["ts"] + 1e-6:
                ends.pop()
            assert not ends or end <= ends[-1] + 1e-6, event
            ends.append(end)
    complete = [event for own in threads.values() for event in own]
    whole = [event for event in complete if event["cat"] == "step"]
    assert [event["args"]["step"] for event in whole] == [step["step"] for step in timeline]
    found = sorted(
        (e["args"]["step"], e["cat"], e["name"], round(e["dur"], 3)) for e in complete if e["cat"] != "step"
    )
    want = sorted(
        (
            step["step"],
            PARTS[s["lane"]][0],
            f"{PARTS[s['lane']][1]} {s['micro_batch']}",
            round((s["end_ms"] - s["start_ms"]) * 1e3, 3),
        )
        for step in timeline
        for s in step["spans"]
    )
    assert len(found) == len(want)
    for have, need in zip(found, want):
        assert have[:3] == need[:3] and abs(have[3] - need[3]) <= 0.002, (have, need)


def main():
    run, page, trace = map(pathlib.Path, sys.argv[1:4])
    text = page.read_text()
    root = html5lib.HTMLParser(strict=True).parse(text)
    assert root.find(f"{XHTML}head/{XHTML}title").text.startswith(run.name)
    check_self_contained(text, root)
    check_described(root)
    lines = json_lines(run / "metrics.jsonl")
    check_curves(root, lines)
    timeline = json_lines(run / "timeline.jsonl")
    if timeline:
        check_timeline(root, timeline)
        check_trace(json.loads(trace.read_text()), timeline)
    print(f"{len(lines)} lines, {len(timeline)} recorded steps, {len(text)} bytes of page: as recorded")


main()
