"""Our side: the link as a proxy in real time, or the simulation alone in virtual time."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TRANSFER = [sys.executable, "-B", f"{HERE}/transfer.py"]
PORTS = iter(range(20_000, 32_000))


def in_real_time(edge_node, works, seed):
    """Slow networks in several lanes at once, each a link of its own; fast ones one after the other,
    with the machine to themselves."""
    results = []
    together = [work for work in works if work.lanes > 1]
    for group in [together] + [[work] for work in works if work.lanes == 1]:
        results += at_once(edge_node, group, seed)
    return results


def at_once(edge_node, works, seed):
    lanes = [(work, lane) for work in works for lane in range(work.lanes)]
    results, errors = [], []

    def run(work, lane):
        try:
            results.extend(through_proxy(edge_node, work, 1 + lane + 1000 * seed))
        except (OSError, RuntimeError, ValueError) as error:
            errors.append(f"{work.network.name}: {error}")

    threads = [threading.Thread(target=run, args=lane) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        sys.exit("link-vs-kernel: our side failed: " + "\n".join(errors))
    return results


def through_proxy(edge_node, work, seed):
    """One lane: a server, the link in front of it, and a client."""
    ports = free_ports(2)
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        profile = write_profile(folder, work.network)
        link = [edge_node, "link", "--profile", profile, "--listen", f"127.0.0.1:{ports[0]}"]
        link += ["--to", f"127.0.0.1:{ports[1]}", "--seed", str(seed)]
        output = {"stdout": log, "stderr": log}
        server = subprocess.Popen([*TRANSFER, "serve", "127.0.0.1", str(ports[1])], **output)
        proxy = subprocess.Popen(link, **output)
        try:
            # The server first: the link's first connection must find it.
            await_port(ports[1], server)
            await_port(ports[0], proxy)
            client = [*TRANSFER, "measure", "127.0.0.1", str(ports[0]), str(work.settle_s)]
            lines = work.lines(work.lanes)
            done = subprocess.run(client, input=lines, capture_output=True, text=True)
        finally:
            for process in (proxy, server):
                process.terminate()
                process.wait()
        if done.returncode:
            # What the link or the server said is the reason.
            log.seek(0)
            raise RuntimeError(f"{done.stderr[-1000:]}\nlink and server: {log.read()[-3000:]}")
    return tagged(work, done.stdout)


def in_virtual_time(transfers, works, seed):
    results = []
    for work in works:
        with tempfile.TemporaryDirectory() as folder:
            command = [transfers, write_profile(folder, work.network), str(work.settle_s), str(seed)]
            done = subprocess.run(command, input=work.lines(1), stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"link-vs-kernel: {transfers} failed")
        results += tagged(work, done.stdout)
    return results


def write_profile(folder, network):
    path = f"{folder}/network.toml"
    with open(path, "w") as file:
        file.write(network.profile())
    return path


def tagged(work, output):
    place = {"rate_mbps": work.network.rate_mbps, "rtt_ms": work.network.rtt_ms}
    return [{**place, **json.loads(line)} for line in output.splitlines()]


def free_ports(count):
    """Below those that the system gives to outgoing connections, which would take them in between."""
    found = []
    while len(found) < count:
        port = next(PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            found.append(port)
        except OSError:
            pass
    return found


def await_port(port, process):
    """Waits until `process` listens there."""
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended before it listened")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")
