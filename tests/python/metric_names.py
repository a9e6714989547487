"""What both nodes export against what is written of it: metric_names.py METRICS...

METRICS are files with what GET /metrics of an edge or a cloud answered, named edge-*.txt and cloud-*.txt; together they have
to have every metric that there is. Compared, both ways, are docs/metrics.md (names, types, nodes, labels), and one way
the dashboard, the values of the chart and what prometheus-adapter makes of it, which may name only what there is. Names
that appear in the nodes' sources have to be among them too.
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Those of the process have the names that they have everywhere.
NAME = r"(?:cleave|process)_[a-z0-9_]+"
# Of a histogram's or summary's samples, beside its name.
PARTS = ("_bucket", "_sum", "_count")
# What prometheus-adapter.yaml makes of a counter, or of a histogram's seconds.
PER_SECOND = "_per_second"


def exported(text):
    """Type and sets of labels by name."""
    found = {}
    for name, kind in re.findall(rf"^# TYPE ({NAME}) (\w+)$", text, re.M):
        found[name] = (kind, set())
    for name, labels in re.findall(rf"^({NAME})(?:{{(.*)}})? \S+$", text, re.M):
        for part in PARTS:
            if name not in found and name.endswith(part):
                name = name.removesuffix(part)
        keys = set(re.findall(r'([a-z_]+)="', labels)) - {"le", "quantile"}
        found[name][1].add(frozenset(keys))
    return found


def documented():
    """Type, node and labels by name."""
    rows = re.findall(rf"^\| `({NAME})` \| (\w+) \| (\w+) \| (.*?) \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    return {name: (kind, node, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, node, labels in rows}


def sources():
    """Names in the nodes' own code."""
    files = [f for crate in ("shared", "edge-node", "cloud-node") for f in (ROOT / crate / "src").rglob("*.rs")]
    return {name for file in files for name in re.findall(rf'"({NAME})"', file.read_text())}


def users():
    """Names by the file that uses them."""
    dashboard = (ROOT / "deploy/observe/grafana/dashboards/cleave.json").read_text()
    chart = (ROOT / "deploy/helm/cleave/values.yaml").read_text()
    scaled = set(re.findall(rf"metric: ({NAME})", chart))
    for document in yaml.safe_load_all((ROOT / "deploy/manifests/cleave.yaml").read_text()):
        for metric in document.get("spec", {}).get("metrics", []) if document else []:
            if metric["type"] == "Pods":
                scaled.add(metric["pods"]["metric"]["name"])
    readme = (ROOT / "deploy/README.md").read_text()
    return {
        "the dashboard": set(re.findall(NAME, dashboard)),
        "the autoscaler": scaled,
        "deploy/README.md": set(re.findall(NAME, readme)),
    }


def problems(files):
    edge, cloud = {}, {}
    for file in files:
        of_node = edge if file.name.startswith("edge") else cloud
        for name, (kind, labels) in exported(file.read_text()).items():
            of_node.setdefault(name, (kind, set()))[1].update(labels)
    written = documented()
    if not (edge and cloud and written):
        yield f"too little to compare: {len(edge)} of the edge, {len(cloud)} of the cloud, {len(written)} documented"
    for name in sorted(edge.keys() | cloud.keys() | written.keys()):
        node = {(True, False): "edge", (False, True): "cloud", (True, True): "both"}.get((name in edge, name in cloud))
        if name not in written:
            yield f"{name} is exported and not in docs/metrics.md"
        elif node is None:
            yield f"{name} is in docs/metrics.md and was not exported"
        else:
            kind, labels = edge.get(name) or cloud[name]
            found = (kind, node, *sorted(labels, key=sorted))
            if found != written[name]:
                yield f"{name} is {found}, and in docs/metrics.md {written[name]}"
    for name in sorted(sources() - written.keys()):
        yield f"{name} is in the sources and not in docs/metrics.md"
    for user, names in users().items():
        # As long as nothing scales by a metric, there is nothing to compare.
        if not names and user == "the dashboard":
            yield f"{user} names no metric at all"
        for name in sorted(names):
            plain = name.removesuffix(PER_SECOND)
            known = [name, plain, plain + "_total", *(name.removesuffix(p) for p in PARTS)]
            if not any(n in edge or n in cloud for n in known):
                yield f"{user} names {name}, which is not exported"
    drawn = users()["the dashboard"]
    drawn |= {name.removesuffix(part) for name in drawn for part in PARTS}
    for name in sorted(edge.keys() & written.keys() - drawn):
        yield f"{name} is on no panel of the dashboard"


def main():
    files = [Path(word) for word in sys.argv[1:]]
    found = list(problems(files))
    for problem in found:
        print(f"FAILED {problem}")
    if found:
        sys.exit(1)
    print(f"ok {len(documented())} metrics, as docs/metrics.md, the dashboard and the chart have them")


if __name__ == "__main__":
    main()
