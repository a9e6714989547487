"""The kernel's side: two hosts and two routers in namespaces, tbf on the one, netem on the other.

    a ── r1 ──(tbf up)── r2 ──(netem up)── b
       (netem down)   (tbf down)

The rate is a router's, as a base station's is: on the sending host tbf would push back on its own
sockets instead of queueing. Run as root in a kernel that has both; reads cases as JSON lines.
"""

import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from cases import Network, Work  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
NAMESPACES = ["cleave-a", "cleave-r1", "cleave-r2", "cleave-b"]
PORT = 7000


def sh(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr.strip()}")


def clean():
    for name in NAMESPACES:
        subprocess.run(f"ip netns del {name}", shell=True, capture_output=True)


def build():
    a, r1, r2, b = NAMESPACES
    for name in NAMESPACES:
        sh(f"ip netns add {name}")
        sh(f"ip -n {name} link set lo up")
        sh(f"ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_no_metrics_save=1")
    for left, ldev, right, rdev, net in [(a, "to-r1", r1, "to-a", 1), (r1, "to-r2", r2, "to-r1", 2), (r2, "to-b", b, "to-r2", 3)]:
        sh(f"ip link add {ldev} netns {left} type veth peer name {rdev} netns {right}")
        for name, dev, host in [(left, ldev, 1), (right, rdev, 2)]:
            sh(f"ip -n {name} addr add 10.9.{net}.{host}/24 dev {dev}")
            sh(f"ip -n {name} link set dev {dev} txqueuelen 10000 up")
            # tbf and netem see packets, not the bundles of 64 KB that hosts make to save work; TCP makes
            # them whatever the device says, unless a bundle is one packet.
            sh(f"ip -n {name} link set dev {dev} gso_max_segs 1")
            sh(f"ip netns exec {name} ethtool -K {dev} tso off gso off gro off")
    sh(f"ip -n {a} route add default via 10.9.1.2")
    sh(f"ip -n {r1} route add 10.9.3.0/24 via 10.9.2.2")
    sh(f"ip -n {r2} route add 10.9.1.0/24 via 10.9.2.1")
    sh(f"ip -n {b} route add default via 10.9.3.1")


def shape(network):
    _, r1, r2, _ = NAMESPACES
    sh(f"ip netns exec {r1} tc qdisc replace dev to-r2 root {network.tbf()}")
    sh(f"ip netns exec {r2} tc qdisc replace dev to-b root {network.netem()}")
    sh(f"ip netns exec {r2} tc qdisc replace dev to-r1 root {network.tbf()}")
    sh(f"ip netns exec {r1} tc qdisc replace dev to-a root {network.netem()}")


def main():
    work = json.load(open(sys.argv[1]))
    clean()
    build()
    transfer = f"{sys.executable} {HERE}/transfer.py"
    inside = lambda name: ["ip", "netns", "exec", name]
    server = subprocess.Popen(inside(NAMESPACES[3]) + f"{transfer} serve 10.9.3.2 {PORT}".split())
    time.sleep(0.5)
    try:
        for entry in work:
            network = Network(entry["rate_mbps"], entry["rtt_ms"])
            shape(network)
            settle = Work(network, []).settle_s
            client = inside(NAMESPACES[0]) + f"{transfer} measure 10.9.3.2 {PORT} {settle}".split()
            done = subprocess.run(client, input=entry["lines"], stdout=subprocess.PIPE, text=True, check=True)
            for line in done.stdout.splitlines():
                result = {"rate_mbps": network.rate_mbps, "rtt_ms": network.rtt_ms, **json.loads(line)}
                print(json.dumps(result), flush=True)
    finally:
        server.kill()
        clean()


if __name__ == "__main__":
    main()
