"""The Helm chart, rendered by helm and compared with Kubernetes' own schemas: deploy_chart.py HELM FOLDER_OF_NODES

Every set of values below is validated strictly for each version of VERSIONS, the nodes must take the configuration and
the variables that it leads to, and what else it must lead to is checked; every set of bad ones must be refused. Prints a
line for each, and exits with 1 at the first that fails.
"""

import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import kubernetes_validate
import yaml

# The chart's oldest (preStop.sleep), and the three newest that kubernetes-validate knows.
VERSIONS = ["1.30", "1.35", "1.36", "1.37"]
# Of other projects: kubernetes-validate has no schemas of them.
FOREIGN = {"Issuer", "Certificate", "PodMonitor"}
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/cleave"
HELM, NODES = sys.argv[1:3]


def check(what, ok, found=""):
    if not ok:
        sys.exit(f"FAILED {what}: {found}")


def helm(values, *more):
    command = [HELM, "template", "cleave", CHART, "--namespace", "cleave", "--values", "-", *more]
    return subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True)


def render(values, *more):
    """Documents by kind and name."""
    outcome = helm(values, *more)
    check(f"helm template {values}", outcome.returncode == 0, outcome.stderr.strip())
    documents = [d for d in yaml.safe_load_all(outcome.stdout) if d]
    return {f"{d['kind']}/{d['metadata']['name']}": d for d in documents}


def validate(documents, versions, validated=set()):
    """Strictly; what several sets of values have alike, once."""
    warnings.simplefilter("ignore")
    for name, document in documents.items():
        text = yaml.safe_dump(document)
        if document["kind"] in FOREIGN or text in validated:
            continue
        validated.add(text)
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except (
                kubernetes_validate.ValidationError,
                kubernetes_validate.SchemaNotFoundError,
                kubernetes_validate.InvalidSchemaError,
            ) as error:
                check(f"{name} for Kubernetes {version}", False, error)


def pods(documents):
    """Pod specs of both nodes, by component."""
    found = {}
    for document in documents.values():
        if document["kind"] in ("Deployment", "DaemonSet"):
            labels = document["spec"]["template"]["metadata"]["labels"]
            found[labels["app.kubernetes.io/component"]] = document["spec"]["template"]["spec"]
    return found


def variables(pod):
    return {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}


def check_pods(documents):
    """What holds of every pod, whatever the values are: Kubernetes' profile "restricted", and more."""
    for component, pod in pods(documents).items():
        (container,) = pod["containers"]
        security, of_container = pod["securityContext"], container["securityContext"]
        for ok, what in [
            (security["runAsNonRoot"] and security["runAsUser"] == security["runAsGroup"] == 65532, "is not root"),
            (security["seccompProfile"] == {"type": "RuntimeDefault"}, "has the runtime's seccomp profile"),
            (of_container["capabilities"] == {"drop": ["ALL"]}, "has no capabilities"),
            (not of_container["allowPrivilegeEscalation"] and not of_container["privileged"], "gets no privilege"),
            (of_container["readOnlyRootFilesystem"], "has a read-only root"),
            (pod["automountServiceAccountToken"] is False, "has no token"),
            (not any(pod.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")), "shares nothing of the host"),
            ({"requests", "limits"} <= container["resources"].keys(), "has requests and limits"),
            (all(container.get(p) for p in ("startupProbe", "readinessProbe", "livenessProbe")), "is probed"),
        ]:
            check(f"{component} {what}", ok, yaml.safe_dump(pod))
        mounts = {m["name"] for m in container["volumeMounts"]}
        check(f"{component} mounts its volumes", mounts == {v["name"] for v in pod["volumes"]}, mounts)


def check_nodes(documents):
    """Both nodes take their cleave.toml and their variables: a health check begins by reading them."""
    data = documents["ConfigMap/cleave"]["data"]
    for component, pod in pods(documents).items():
        with tempfile.TemporaryDirectory() as folder:
            (mount,) = [v["configMap"]["items"] for v in pod["volumes"] if v["name"] == "config"]
            for item in mount:
                path = Path(folder) / item["path"]
                path.parent.mkdir(exist_ok=True)
                path.write_text(data[item["key"]])
            # Of a secret nothing but that it is there is known here.
            given = {name: value or "secret" for name, value in variables(pod).items()}
            inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CLEAVE_", "AWS_"))}
            command = [Path(NODES) / f"{component}-node", "health", "--config", f"{folder}/cleave.toml"]
            outcome = subprocess.run(command, env=inherited | given, capture_output=True, text=True, timeout=30)
            # 2: the configuration is refused. 1: no node is there to be healthy.
            check(f"the {component} takes its configuration", outcome.returncode in (0, 1), outcome.stderr)


def check_drain(documents):
    """A pod has the time that the node takes."""
    for component, pod in pods(documents).items():
        source = (ROOT / f"{component}-node/src/stack.rs").read_text()
        drain = int(re.search(r"const DRAIN: Duration = Duration::from_secs\((\d+)\);", source)[1])
        template = (CHART / "templates/_pod.tpl").read_text()
        known = int(re.search(r'define "cleave.drainSeconds" -}}(\d+)', template)[1])
        check(f"the chart knows the {component}'s DRAIN", drain == known, f"{drain} s, and in the chart {known}")
        delay = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = pod["terminationGracePeriodSeconds"]
        check(f"the {component} may drain", grace > delay + drain, f"{grace} s for {delay} and {drain}")


def check_network(documents):
    """Edges alone reach the cloud's port, Prometheus alone its metrics."""
    rules = documents["NetworkPolicy/cleave-cloud"]["spec"]["ingress"]
    by_port = {port["port"]: rule["from"] for rule in rules for port in rule["ports"]}
    edge = documents["DaemonSet/cleave-edge"]["spec"]["template"]["metadata"]["labels"]
    check("two ports", by_port.keys() == {"grpc", "metrics"}, by_port)
    (edges,) = by_port["grpc"]
    check("edges reach the cloud", edges["podSelector"]["matchLabels"].items() <= edge.items(), edges)
    (prometheus,) = by_port["metrics"]
    check("Prometheus reaches the metrics", {"namespaceSelector", "podSelector"} == prometheus.keys(), prometheus)


def check_selectors(documents):
    """Whatever selects pods selects those of its own component and no others."""
    labels = {}
    for document in documents.values():
        if document["kind"] in ("Deployment", "DaemonSet"):
            labels[document["metadata"]["name"]] = document["spec"]["template"]["metadata"]["labels"]
    for name, document in documents.items():
        spec = document.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if not selector or document["kind"] == "PodMonitor":
            continue
        selector = selector.get("matchLabels", selector)
        selected = {pod for pod, has in labels.items() if selector.items() <= has.items()}
        own = document["metadata"]["name"].removesuffix("-external")
        check(f"{name} selects its pods", selected == {own}, selected)


def of_defaults(documents):
    check_drain(documents)
    check_network(documents)
    cloud, edge = pods(documents)["cloud"], pods(documents)["edge"]
    address = variables(edge)["CLEAVE_EDGE__CLOUD"]
    service = documents["Service/cleave-cloud"]["spec"]
    port = variables(cloud)["CLEAVE_CLOUD__LISTEN"].rsplit(":", 1)[1]
    check("a headless service", service["clusterIP"] == "None" and str(service["ports"][0]["port"]) == port, service)
    check("the edge knows it", address == f"https://cleave-cloud.cleave.svc:{port}", address)
    scaler = documents["HorizontalPodAutoscaler/cleave-cloud"]["spec"]
    check("the cloud scales", scaler["scaleTargetRef"]["name"] == "cleave-cloud", scaler)
    by = scaler["metrics"][0]["pods"]["metric"]["name"]
    check("by queue time", by == "cleave_compute_wait_seconds_per_second", by)
    check("no fixed replicas beside it", "replicas" not in documents["Deployment/cleave-cloud"]["spec"])
    check("a budget", "PodDisruptionBudget/cleave-cloud" in documents)


def of_certificates(documents):
    certificates = {n: d["spec"] for n, d in documents.items() if d["kind"] == "Certificate"}
    cloud, edge = certificates["Certificate/cleave-cloud"], certificates["Certificate/cleave-edge"]
    names = ["cleave-cloud.cleave.svc", "cloud.example.org"]
    check("the cloud's names", cloud["dnsNames"] == names, cloud)
    check("the cloud checks its own health", {"server auth", "client auth"} <= set(cloud["usages"]), cloud)
    check("an edge is no cloud", "server auth" not in edge["usages"], edge)
    for component, pod in pods(documents).items():
        (secret,) = [v["secret"]["secretName"] for v in pod["volumes"] if v["name"] == "identity"]
        made = certificates[f"Certificate/cleave-{component}"]["secretName"]
        check(f"the {component} mounts what is made", secret == made, f"{secret}, {made}")


def of_plaintext(documents):
    cloud, edge = pods(documents)["cloud"], pods(documents)["edge"]
    probe = cloud["containers"][0]["readinessProbe"]
    check("the kubelet asks by itself", probe["grpc"] == {"port": 50051}, probe)
    check("said in as many words", variables(edge)["CLEAVE_SECURITY__PLAINTEXT"] == '["clients","link"]')
    check("no keys", not any(v["name"] == "identity" for v in cloud["volumes"] + edge["volumes"]))


def of_clients(documents):
    edge = pods(documents)["edge"]
    container, known = edge["containers"][0], variables(edge)
    check("nothing is unencrypted", known["CLEAVE_SECURITY__PLAINTEXT"] == "[]", known)
    check("an identity for clients", known["CLEAVE_SECURITY__CLIENTS__KEY"] == "/clients/tls.key", known)
    check("ready by its own client", "exec" in container["readinessProbe"], container["readinessProbe"])
    check("alive over TLS", container["livenessProbe"]["httpGet"]["scheme"] == "HTTPS", container["livenessProbe"])


def of_store(documents):
    for component, pod in pods(documents).items():
        environment = {v["name"]: v for v in pod["containers"][0]["env"]}
        check(f"{component}: store", environment["CLEAVE_RUNS__STORE"]["value"] == "s3://models/cleave")
        check(f"{component}: endpoint", environment["AWS_ENDPOINT"]["value"] == "http://minio.storage.svc:9000")
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            reference = environment[key]["valueFrom"]["secretKeyRef"]
            check(f"{component}: {key}", reference == {"name": "bucket", "key": key}, reference)
        egress = documents[f"NetworkPolicy/cleave-{component}"]["spec"]["egress"]
        check(f"{component} reaches it", {"ports": [{"protocol": "TCP", "port": 9000}]} in egress, egress)


def of_scaling(documents):
    first, second = documents["HorizontalPodAutoscaler/cleave-cloud"]["spec"]["metrics"]
    wanted = {"metric": {"name": "cleave_sessions"}, "target": {"type": "AverageValue", "averageValue": "32"}}
    check("a metric of the pods", first["pods"] == wanted, first)
    check("and the CPU", second["resource"]["name"] == "cpu", second)


def of_alone(documents):
    check("no two pods on one volume", documents["Deployment/cleave-cloud"]["spec"]["strategy"] == {"type": "Recreate"})
    check("no standby", variables(pods(documents)["edge"])["CLEAVE_EDGE__STANDBY"] == "[]")


def of_edges_only(documents):
    check("no cloud", not any("cloud" in name for name in documents), documents.keys())
    check("its address", variables(pods(documents)["edge"])["CLEAVE_EDGE__CLOUD"] == "https://cloud.example.org:443")


# Name: values, and what they must lead to.
GOOD = {
    "defaults": ({}, of_defaults),
    "certificates by cert-manager": (
        {"security": {"certManager": {"enabled": True, "cloudNames": ["cloud.example.org"]}}},
        of_certificates,
    ),
    "certificates by an issuer": (
        {
            "security": {
                "edges": ["edge"],
                "certManager": {
                    "enabled": True,
                    "cloudNames": ["cloud.example.org"],
                    "issuer": {"name": "house", "kind": "ClusterIssuer"},
                },
            }
        },
        of_certificates,
    ),
    "without TLS": ({"security": {"mutualTls": False}}, of_plaintext),
    "TLS for clients": ({"security": {"clientsSecret": "edge-clients"}}, of_clients),
    "a bucket": (
        {
            "runs": {
                "store": "s3://models/cleave",
                "s3": {"existingSecret": "bucket", "endpoint": "http://minio.storage.svc:9000", "allowHttp": True},
            },
            "networkPolicy": {"egressPorts": [9000]},
            "cloud": {"persistence": {"enabled": False}},
        },
        of_store,
    ),
    "scaling by a metric": (
        {"cloud": {"autoscaling": {"pods": [{"metric": "cleave_sessions", "average": "32"}]}}},
        of_scaling,
    ),
    "one cloud": (
        {
            "cloud": {
                "replicas": 1,
                "autoscaling": {"enabled": False},
                "persistence": {"accessMode": "ReadWriteOnce", "storageClass": "fast"},
            }
        },
        of_alone,
    ),
    "edges only": (
        {"cloud": {"enabled": False}, "edge": {"cloud": "https://cloud.example.org:443"}},
        of_edges_only,
    ),
    "cloud only": (
        {
            "edge": {"enabled": False},
            "cloud": {"service": {"external": {"enabled": True, "annotations": {"a": "b"}}}},
            "networkPolicy": {"edges": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        },
        lambda documents: check("reached from outside", "Service/cleave-cloud-external" in documents),
    ),
    "a model from a volume": (
        {
            "config": 'split_point = "auto"\nmodel = "resnet18"\n[weights]\nfile = "/models/resnet18"\n',
            "models": {"existingClaim": "models"},
        },
        lambda documents: check("a mount", "/models" in str(pods(documents)["cloud"]["containers"][0]["volumeMounts"])),
    ),
    "everything else": (
        {
            "config": '[link]\nprofile = "mine"\n',
            "imagePullSecrets": [{"name": "registry"}],
            "linkProfiles": {"mine": (ROOT / "config/links/wifi.toml").read_text()},
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "serviceAccount": {"annotations": {"a": "b"}},
            "networkPolicy": {"clients": [{"podSelector": {}}]},
            "cloud": {
                "image": {"digest": "sha256:" + "0" * 64},
                "topologySpread": "DoNotSchedule",
                "nodeSelector": {"gpu": "no"},
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"podAntiAffinity": {}},
                "priorityClassName": "high",
                "podAnnotations": {"a": "b"},
                "extraEnv": [{"name": "RUST_LOG", "value": "debug"}],
            },
            "edge": {
                "hostPorts": {"http": 8000, "grpc": 8001},
                "persistence": {"hostPath": "/var/lib/cleave"},
                "nodeSelector": {"cleave/edge": "true"},
                "tolerations": [{"operator": "Exists"}],
                "maxUnavailable": "10%",
            },
        },
        lambda documents: check("a link of one's own", "link-mine.toml" in documents["ConfigMap/cleave"]["data"]),
    ),
}

# Values, and a word of the refusal.
BAD = [
    ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    ({"config": ""}, "/config"),
    ({"cloud": {"service": {"port": 70000}}}, "/cloud/service/port"),
    ({"cloud": {"replicas": "many"}}, "/cloud/replicas"),
    ({"cloud": {"image": {"digest": "latest"}}}, "/cloud/image/digest"),
    ({"cloud": {"persistence": {"accessMode": "ReadOnlyMany"}}}, "/cloud/persistence/accessMode"),
    ({"cloud": {"persistence": {"accessMode": "ReadWriteOnce"}}}, "is for one pod"),
    ({"cloud": {"autoscaling": {"minReplicas": 9}}}, "is more than maxReplicas"),
    ({"cloud": {"autoscaling": {"pods": [{"metric": "queue time", "average": "1"}]}}}, "/cloud/autoscaling/pods/0/metric"),
    ({"cloud": {"enabled": False}}, "edge.cloud: is missing"),
    ({"edge": {"cloud": "cloud:50051"}}, "/edge/cloud"),
    ({"edge": {"standby": ["https://cloud"]}}, "/edge/standby/0"),
    ({"runs": {"store": "s3://models/cleave"}}, "runs.s3.existingSecret"),
    ({"runs": {"store": "gs://models"}}, "/runs/store"),
    ({"security": {"certManager": {"duration": "90d"}}}, "/security/certManager/duration"),
    ({"security": {"tls": True}}, "additional properties 'tls' not allowed"),
    ({"termination": {"graceSeconds": 13}}, "amid its requests"),
    ({"networkPolicy": {"edges": [{"cidr": "192.0.2.0/24"}]}}, "/networkPolicy/edges/0"),
]

for name, (values, expect) in GOOD.items():
    documents = render(values)
    validate(documents, VERSIONS)
    check_pods(documents)
    check_selectors(documents)
    check_nodes(documents)
    expect(documents)
    kinds = sorted({d["kind"] for d in documents.values()} & FOREIGN)
    aside = f", but {' and '.join(kinds)}, of which there is no schema" if kinds else ""
    print(f"ok {name}: {len(documents)} objects, for Kubernetes {', '.join(VERSIONS)}{aside}")

for version in VERSIONS:
    render({}, "--kube-version", version)
outcome = helm({}, "--kube-version", "1.29")
check("an older Kubernetes is refused", outcome.returncode != 0 and "kubeVersion" in outcome.stderr, outcome.stderr)

for values, word in BAD:
    outcome = helm(values)
    found = outcome.stderr.strip() if outcome.returncode else "it was rendered"
    check(f"{values} is refused", outcome.returncode != 0 and word in found, found)
    print(f"ok refused: {values}")

# Validators that let everything pass would be none.
misspelt = render({"config": "split_pint = 4\n"})
try:
    check_nodes(misspelt)
    sys.exit("FAILED a misspelt key is refused: it was taken")
except SystemExit as refusal:
    check("a misspelt key is refused", "split_pint: unknown key" in str(refusal), refusal)
    print("ok refused: a misspelt key")
broken = render({})
broken["Deployment/cleave-cloud"]["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
try:
    kubernetes_validate.validate(broken["Deployment/cleave-cloud"], VERSIONS[-1], strict=True)
    check("a misspelt field is refused", False, "it was taken")
except kubernetes_validate.ValidationError:
    print("ok refused: a misspelt field")
print(f"{len(GOOD) + len(BAD) + 2} passed, 0 failed")
