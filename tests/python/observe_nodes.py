"""Real nodes, started as the manifests say, observed by a real Prometheus: observe_nodes.py FOLDER_OF_NODES

The variables, arguments, cleave.toml and probes are those of deploy/manifests/cleave.yaml; only paths and ports are this
machine's. One pair of nodes classifies across a simulated link, and loses its cloud; a second pair generates tokens. What
both export is compared by metric_names.py, and every expression of the dashboard and of prometheus-adapter.yaml must give
data. Needs prometheus on PATH, and the clients of tests/python/requirements.txt.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import grpc
import numpy
import tritonclient.grpc as triton
import yaml

from ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.argv[1]).resolve()
# The name that the manifests' certificates are for, and its address here.
SERVICE, HERE = "cleave-cloud.cleave.svc", "localhost"
SERVING = b"\x08\x01"
# Of rates: longer than all of this takes.
SCRAPE_S, WINDOW_S = 1, 120
TOKENS = """
split_point = 1
[model]
family = "gpt2"
vocab_size = 97
n_positions = 64
n_embd = 48
n_layer = 1
n_head = 4
[link]
profile = "none"
"""


def check(what, ok, found=""):
    if not ok:
        sys.exit(f"FAILED {what}: {found}")
    print(f"ok {what}")


def eventually(what, attempt, seconds=60):
    """The first true answer; errors count as none."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = attempt()
            if last:
                return last
        except (OSError, grpc.RpcError, subprocess.SubprocessError) as error:
            last = error
        time.sleep(0.1)
    sys.exit(f"FAILED {what}: not within {seconds} s: {last}")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read().decode()


class Node:
    """A container of the manifests as a process."""

    def __init__(self, folder, name, binary, arguments, variables):
        self.name, self.binary, self.arguments = name, binary, arguments
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CLEAVE_", "AWS_"))}
        self.environment = inherited | variables
        self.log = folder / f"{name}.log"
        self.process = None

    def run(self, *words):
        command = [BIN / self.binary, *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def start(self):
        with self.log.open("w") as log:
            command = [BIN / self.binary, *self.arguments]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def stop(self):
        """As a kubelet does; its exit status."""
        if self.process is None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None


class Place:
    """This machine in place of a cluster: paths and ports."""

    def __init__(self, folder):
        self.folder = folder
        self.cloud, self.metrics, self.http, self.grpc = free_ports(4)
        documents = [d for d in yaml.safe_load_all((ROOT / "deploy/manifests/cleave.yaml").read_text()) if d]
        (config,) = [d for d in documents if d["kind"] == "ConfigMap"]
        (folder / "etc").mkdir()
        for name, text in config["data"].items():
            (folder / "etc" / name).write_text(text)
        self.containers = {
            d["kind"]: d["spec"]["template"]["spec"]["containers"][0]
            for d in documents
            if d["kind"] in ("Deployment", "DaemonSet")
        }

    def __call__(self, text, component):
        moved = {
            "/etc/cleave/": f"{self.folder}/etc/",
            "/var/lib/cleave": f"{self.folder}/runs-{component}",
            "/identity/": f"{self.folder}/identity-{component}/",
            "0.0.0.0:50051": f"127.0.0.1:{self.cloud}",
            "0.0.0.0:9464": f"127.0.0.1:{self.metrics}",
            "0.0.0.0:8000": f"127.0.0.1:{self.http}",
            "0.0.0.0:8001": f"127.0.0.1:{self.grpc}",
            f"{SERVICE}:50051": f"{HERE}:{self.cloud}",
        }
        for old, new in moved.items():
            text = text.replace(old, new)
        return text

    def node(self, component, kind, **further):
        container = self.containers[kind]
        variables = {v["name"]: self(v["value"], component) for v in container["env"]}
        arguments = [self(word, component) for word in container["args"]]
        return Node(self.folder, component, f"{component}-node", arguments, variables | further)

    def identities(self):
        """What deploy/README.md says to make the secrets of."""
        made = self.folder / "certs"
        command = [BIN / "edge-node", "certs", "--dir", made, "--cloud-name", SERVICE, "--edge", "edge"]
        subprocess.run([*command, "--config", self.folder / "etc/cleave.toml"], check=True, stdout=subprocess.DEVNULL)
        for component in ("cloud", "edge"):
            target = self.folder / f"identity-{component}"
            target.mkdir()
            for old, new in [("ca.pem", "ca.crt"), ("node.pem", "tls.crt"), ("node-key.pem", "tls.key")]:
                shutil.copy(made / component / old, target / new)


def cloud_probe(place, cloud):
    """The command that the kubelet runs."""
    command = place.containers["Deployment"]["readinessProbe"]["exec"]["command"]
    return cloud.run(*[place(word, "cloud") for word in command[1:]])


def check_configuration(place, cloud):
    """2 is a refused configuration, 1 a node that does not answer."""
    outcome = cloud_probe(place, cloud)
    check("the cloud takes the manifests' configuration", outcome.returncode == 1, outcome.stderr)
    bad = place.folder / "etc/bad.toml"
    bad.write_text((place.folder / "etc/cleave.toml").read_text().replace("split_point", "split_pint"))
    outcome = cloud.run("health", "--config", str(bad))
    check("a misspelt key is refused", outcome.returncode == 2 and "split_pint" in outcome.stderr, outcome.stderr)


def serving(port):
    """The kubelet's gRPC probe."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5) == SERVING


def train(edge):
    """One epoch, and an exit for what it made."""
    config = edge.arguments[1:]
    outcome = edge.run("train", *config, "--set", "train.epochs=1", "--link", "none")
    check("a run across mutual TLS", outcome.returncode == 0, outcome.stderr)
    outcome = edge.run("exits", *config, "--link", "none", "train", "--after", "pool1", "--epochs", "1")
    check("an exit", outcome.returncode == 0, outcome.stderr)


class Requests(threading.Thread):
    """Asks the edge until it is told to stop; every second request may leave at an exit."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{port}/v2/models/digits/infer"
        self.answers, self.failed, self.stop = 0, None, False

    def run(self):
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
        while not self.stop and self.failed is None:
            body = json.dumps({"inputs": [tensor], "parameters": {"exits": self.answers % 2 == 0}}).encode()
            request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    json.load(reply)
                self.answers += 1
            except urllib.error.HTTPError as error:
                self.failed = f"{error}: {error.read().decode()}"
            except OSError as error:
                self.failed = str(error)
            time.sleep(0.02)


def token_nodes(folder):
    """A pair of nodes for text, with the defaults beside its model."""
    cloud, metrics, http, edge = free_ports(4)
    (folder / "tokens.toml").write_text(TOKENS)
    serve = ["serve", "--config", str(folder / "tokens.toml")]
    common = {"CLEAVE_RUNS__DIR": str(folder / "runs-tokens"), "CLEAVE_CLOUD__LISTEN": f"127.0.0.1:{cloud}"}
    listen = {"CLEAVE_CLOUD__METRICS_LISTEN": f"127.0.0.1:{metrics}"}
    variables = {
        "CLEAVE_EDGE__CLOUD": f"http://127.0.0.1:{cloud}",
        "CLEAVE_EDGE__HTTP_LISTEN": f"127.0.0.1:{http}",
        "CLEAVE_EDGE__GRPC_LISTEN": f"127.0.0.1:{edge}",
    }
    nodes = [
        Node(folder, "cloud-tokens", "cloud-node", serve, common | listen),
        Node(folder, "edge-tokens", "edge-node", serve, common | variables),
    ]
    return nodes, metrics, http, edge


def generate(port):
    """Eight tokens from an edge."""
    answers = []
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        ids = triton.InferInput("input_ids", [1, 3], "INT64")
        ids.set_data_from_numpy(numpy.array([[3, 1, 4]], dtype=numpy.int64))
        client.async_stream_infer("digits", [ids], parameters={"max_tokens": 8})
        eventually("a stream of tokens", lambda: len(answers) >= 8 or any(error for _, error in answers))
        client.stop_stream()
    errors = [error for _, error in answers if error]
    check("tokens", not errors, errors)


class Prometheus:
    """The committed configuration, with this machine's targets."""

    def __init__(self, folder, targets):
        (self.port,) = free_ports(1)
        config = yaml.safe_load((ROOT / "deploy/observe/prometheus.yml").read_text())
        config["global"]["scrape_interval"] = f"{SCRAPE_S}s"
        check("the jobs of prometheus.yml", {job["job_name"] for job in config["scrape_configs"]} == targets.keys())
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            addresses = [f"127.0.0.1:{port}" for port in targets[job["job_name"]]]
            # What Kubernetes' discovery adds.
            job["static_configs"] = [{"targets": addresses, "labels": {"namespace": "cleave", "pod": "cleave-0"}}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with (folder / "prometheus.log").open("w") as log:
            words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
            words.append(f"--web.listen-address=127.0.0.1:{self.port}")
            self.process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)

    def query(self, expression):
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            return json.loads(get(url))["data"]["result"]
        except urllib.error.HTTPError as error:
            # Prometheus is still starting: who asks comes again.
            if error.code == 503:
                return []
            sys.exit(f"FAILED {expression}: {error.read().decode()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def dashboard():
    """Expressions by the title of their panel, with Grafana's variables set as for all nodes."""
    panels = json.loads((ROOT / "deploy/observe/grafana/dashboards/cleave.json").read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", f"{WINDOW_S}s").replace("$instance", ".*")
            yield panel["title"], re.sub(r"\[1m\]", f"[{WINDOW_S}s]", expression)


def series(text):
    """What there is to adapt: of a histogram its seconds, of the process nothing."""
    for name, kind in re.findall(r"^# TYPE (cleave_\S+) (\w+)", text, re.M):
        yield name + "_sum" if kind == "histogram" else name


def adapted(names):
    """What prometheus-adapter would ask for each metric: its templates are Go's, with << and >>."""
    rules = yaml.safe_load((ROOT / "deploy/observe/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    for name in sorted(set(names)):
        fits = [rule for rule in rules if adapts(rule, name)]
        if len(fits) != 1:
            sys.exit(f"FAILED rules of prometheus-adapter.yaml for {name}: one, not {len(fits)}")
        expression = fits[0]["metricsQuery"].replace("<<.Series>>", name).replace("<<.GroupBy>>", "pod")
        yield name, expression.replace("<<.LabelMatchers>>", 'namespace="cleave"')


def adapts(rule, name):
    pattern = re.search(r'__name__=~"([^"]+)"', rule["seriesQuery"])[1]
    without = [f["isNot"] for f in rule.get("seriesFilters", [])]
    return re.fullmatch(pattern, name) and not any(re.search(no, name) for no in without)


def check_data(prometheus, what, queries):
    queries = list(queries)
    for name, expression in queries:
        # Two scrapes make a rate.
        result = eventually(f"{what}: {name}: {expression}", lambda: prometheus.query(expression), 20)
        values = [float(series["value"][1]) for series in result]
        if any(value != value for value in values):
            sys.exit(f"FAILED {what}: {name}: {expression}: {values}")
    check(f"data of {what}, {len(queries)} expressions", queries)


def metrics_of(folder, texts):
    files = []
    for name, text in texts.items():
        files.append(folder / f"{name}.txt")
        files[-1].write_text(text)
    return files


def observe(folder, started):
    place = Place(folder)
    place.identities()
    cloud = place.node("cloud", "Deployment")
    # A link with a radio, a second way to answer, and exits that are quickly sure: so all metrics are counted.
    edge = place.node(
        "edge",
        "DaemonSet",
        CLEAVE_LINK__PROFILE="5g-midband",
        CLEAVE_EDGE__FALLBACK="whole",
        CLEAVE_EXITS__ENABLED="true",
        CLEAVE_EXITS__THRESHOLD="0.1",
    )
    check_configuration(place, cloud)
    cloud.start()
    started.append(cloud)
    eventually("the cloud's probe", lambda: cloud_probe(place, cloud).returncode == 0)
    train(edge)
    edge.start()
    (token_cloud, token_edge), token_metrics, token_http, token_port = token_nodes(folder)
    token_cloud.start()
    token_edge.start()
    started += [edge, token_cloud, token_edge]
    eventually("the edge's liveness probe", lambda: get(f"http://127.0.0.1:{place.http}/v2/health/live") or True)
    eventually("the edge's readiness probe", lambda: serving(place.grpc))
    eventually("the other edge's", lambda: serving(token_port))

    targets = {"edge": [place.http, token_http], "cloud": [place.metrics, token_metrics]}
    prometheus = Prometheus(folder, targets)
    try:
        # What is counted before the first scrape is no rate.
        eventually("all targets", lambda: len(prometheus.query("up == 1")) == 4)
        requests = Requests(place.http)
        requests.start()
        generate(token_port)
        packets = f"sum(rate(cleave_link_packets_total[{WINDOW_S}s])) > 0"
        eventually("packets", lambda: requests.failed or requests.answers > 20 and prometheus.query(packets))
        # The edge's may have been scraped twice before the cloud's was.
        scrapes = "count_over_time(cleave_compute_wait_seconds_count{job='cloud'}[1m]) > 1"
        eventually("two scrapes of the cloud's metrics", lambda: len(prometheus.query(scrapes)) == 2)
        cloud_text = get(f"http://127.0.0.1:{place.metrics}/metrics")
        check("the cloud ends when it is asked to", cloud.stop() == 0, cloud.log.read_text()[-2000:])
        before = requests.answers
        eventually("answers without the cloud", lambda: requests.answers > before + 20 or requests.failed)
        check_data(prometheus, "the dashboard", dashboard())
        exposed = get(f"http://127.0.0.1:{place.http}/metrics")
        token_text = get(f"http://127.0.0.1:{token_metrics}/metrics")
        check_data(prometheus, "prometheus-adapter.yaml", adapted(series(token_text + exposed)))
        requests.stop = True
        requests.join(30)
        check(f"{requests.answers} answers, none an error", requests.failed is None, requests.failed)
        texts = {
            "edge-digits": exposed,
            "edge-tokens": get(f"http://127.0.0.1:{token_http}/metrics"),
            "cloud-digits": cloud_text,
            "cloud-tokens": token_text,
        }
        names = [sys.executable, ROOT / "tests/python/metric_names.py", *metrics_of(folder, texts)]
        check("names", subprocess.run(names).returncode == 0, "see above")
        check("the edge ends when it is asked to", edge.stop() == 0, edge.log.read_text()[-2000:])
    finally:
        prometheus.stop()


def main():
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            observe(Path(folder), started)
        except SystemExit:
            for node in started:
                print(f"--- {node.name}\n{node.log.read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            for node in started:
                node.stop()


main()
