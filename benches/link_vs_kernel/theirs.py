"""The kernel's side, from outside: which kernel, and how its results come back."""

import json
import os
import platform
import subprocess
import sys
import tempfile

import uml

HERE = os.path.dirname(os.path.abspath(__file__))
LONGEST_S = 3 * 3600
# Exit status.
NO_NETEM = 3


def find(root):
    """Something to call with works: a kernel that has netem; None if there is none."""
    probe = (
        "ip netns add cleave-probe && "
        "ip netns exec cleave-probe tc qdisc add dev lo root netem delay 1ms; "
        "status=$?; ip netns del cleave-probe; exit $status"
    )
    if subprocess.run(probe, shell=True, capture_output=True).returncode == 0:
        return Kernel(None)
    found = uml.find(f"{root}/target/uml")
    return Kernel(found) if found else None


class Kernel:
    def __init__(self, machine):
        self.machine = machine

    def describe(self):
        return self.machine.describe() if self.machine else f"Linux {platform.release()}"

    def __call__(self, works):
        entries = [
            {"rate_mbps": w.network.rate_mbps, "rtt_ms": w.network.rtt_ms, "lines": w.lines(1)}
            for w in works
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(entries, file)
            file.flush()
            command = f"{sys.executable} -B {HERE}/kernel.py {file.name}"
            if self.machine:
                status, output, error = self.machine.run(command, LONGEST_S)
            else:
                done = subprocess.run(command, shell=True, capture_output=True, text=True)
                status, output, error = done.returncode, done.stdout, done.stderr
        if status:
            print(f"link-vs-kernel: NOT RUN: the kernel's side failed: {error[-2000:]}", file=sys.stderr)
            sys.exit(NO_NETEM)
        return [json.loads(line) for line in output.splitlines()]
